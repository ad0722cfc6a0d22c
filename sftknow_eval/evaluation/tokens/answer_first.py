"""Whether a base's greedy completion begins with the answer, read no further than needed.

Most completions are decided by their first tokens. Those that are not wait for each other, and
go on together: a step of a few rows costs nearly as much as one of many.

Legend: N facts, V vocabulary.

Source: section 4 (the answer at the start of the completion).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sftknow_eval.decoding import GreedyBatch
from sftknow_eval.evaluation.tokens.request import NEW_TOKENS, AskedFact
from sftknow_eval.mastery.hf_model import end_ids
from sftknow_eval.mastery.matching import begins, may_begin

# Rows that wait hold their cache in memory.
_MOST_WAITING = 512


class AnswerFirst:
    """Completions of all facts, as far as they are read.

    Args:
        model: the base.
        tokenizer: the base's.
        facts: all of them; batches name theirs by number.
    """

    def __init__(self, model: Any, tokenizer: Any, facts: Sequence[AskedFact]) -> None:
        self._tokenizer, self._facts = tokenizer, facts
        self._ends = set(end_ids(model, tokenizer))
        self._written: list[list[int]] = [[] for _ in facts]
        self._found = [False] * len(facts)
        self._waiting: list[GreedyBatch] = []

    def begin(self, batch: GreedyBatch, logits_NV: torch.Tensor) -> None:
        """Read the first token of a batch, whose rows are numbers of facts."""
        if self._read(batch, logits_NV):
            self._waiting.append(batch)
        if sum(len(waiting.rows) for waiting in self._waiting) >= _MOST_WAITING:
            self._go_on()

    def finish(self) -> list[bool]:
        """Return of each fact whether the answer comes first."""
        self._go_on()
        return self._found

    def _go_on(self) -> None:
        for batch in GreedyBatch.joined(self._waiting):
            for _ in range(NEW_TOKENS - 1):
                if not self._read(batch, batch.next_logits()):
                    break
        self._waiting = []

    def _read(self, batch: GreedyBatch, logits_NV: torch.Tensor) -> bool:
        """Append each row's next token; return whether any row is still undecided."""
        token_N = logits_NV.argmax(dim=-1)
        places = [place for place, alive in enumerate(batch.alive) if alive]
        for place, token in zip(places, token_N[places].tolist(), strict=True):
            self._written[batch.rows[place]].append(token)
        rows = [batch.rows[place] for place in places]
        texts = self._tokenizer.batch_decode(
            [self._written[row] for row in rows], skip_special_tokens=True
        )
        for place, row, text in zip(places, rows, texts, strict=True):
            aliases = self._facts[row].document["aliases"]
            self._found[row] = begins(text, aliases)
            ended = self._found[row] or self._written[row][-1] in self._ends
            batch.alive[place] = not ended and may_begin(text, aliases)
        if not any(batch.alive):
            return False
        batch.go_on(token_N)
        return True
