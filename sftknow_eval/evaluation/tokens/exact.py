"""Token drift with transformers: exact logits of the first position, one pass for each model.

Prompts go in batches of similar length, and only the last position's logits are computed. The
fine-tune's logits wait in a temporary file for the base's, so that one model at a time is in
memory.

Legend: N facts, V vocabulary, S shared vocabulary, K tokens taken.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sftknow_eval.decoding import GreedyBatch
from sftknow_eval.drift.token_kl import TOP, divergence, top_kl, top_tokens
from sftknow_eval.evaluation.tokens.answer_first import AnswerFirst
from sftknow_eval.evaluation.tokens.measures import FactDrift
from sftknow_eval.evaluation.tokens.request import Comparison, Side
from sftknow_eval.evaluation.tokens.vocabulary import SharedVocabulary, shared_vocabulary
from sftknow_eval.mastery.hf_model import check_device, load_model

# To look for what a small model has left in memory takes longer than to ask it.
_LARGE_BYTES = 1 << 28

Advance = Callable[[str, int, int], None]
_Divergences = tuple[float, float | None, float | None]


class ExactModels:
    """Both models in turn, and what is kept of the first.

    Args:
        comparison: models and facts.
        batch_size: prompts in a batch.
        full: compare over the whole vocabulary, too.
        dtype, device, trust_remote_code: as transformers takes them.
        advance: told (what, done, total).
    """

    def __init__(
        self,
        comparison: Comparison,
        *,
        batch_size: int,
        full: bool,
        dtype: str = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
        advance: Advance = lambda what, done, total: None,
    ) -> None:
        self._comparison, self._batch_size, self._full = comparison, batch_size, full
        self._is_large = False
        self._dtype, self._trust = dtype, trust_remote_code
        self._device = check_device(device)
        self._advance = advance
        self._shared: SharedVocabulary | None = None
        n = len(comparison.facts)
        self._ids_NK = torch.zeros(n, TOP, dtype=torch.long)
        self._values_NK = torch.zeros(n, TOP)
        self.dtypes: dict[str, str] = {}

    @property
    def shared(self) -> SharedVocabulary:
        """The vocabulary compared over, once `measure` has loaded the models."""
        assert self._shared is not None
        return self._shared

    @torch.no_grad()
    def measure(self) -> list[FactDrift]:
        """Return the drift of every fact, in their order."""
        with tempfile.TemporaryDirectory(prefix="sftknow-logits-") as folder:
            kept_NS = self._ask_finetuned(Path(folder) / "logits")
            if self._is_large:
                gc.collect()  # the base takes its place in memory
            return self._ask_base(kept_NS)

    def _ask_finetuned(self, path: Path) -> Any:
        """Keep what is compared of the fine-tune's logits; return those of all tokens, if any."""
        model = self._load(self._comparison.finetuned, "finetuned")
        self._shared = self._compare_vocabularies(model)
        facts = self._comparison.facts
        kept_NS = self._room(path, len(facts))
        prompts = [fact.finetuned_tokens for fact in facts]
        for rows, batch in self._batches(model, prompts, "finetuned"):
            shared_NS = self.shared.of(batch.next_logits())
            ids_NK = top_tokens(shared_NS)
            self._ids_NK[rows] = ids_NK.cpu()
            self._values_NK[rows] = shared_NS.gather(1, ids_NK).cpu()
            if kept_NS is not None:
                kept_NS[rows] = shared_NS.cpu().numpy()
        return kept_NS

    def _ask_base(self, kept_NS: Any) -> list[FactDrift]:
        model = self._load(self._comparison.base, "base")
        facts = self._comparison.facts
        completions = AnswerFirst(model, self._comparison.base.tokenizer, facts)
        found: dict[int, _Divergences] = {}
        for rows, batch in self._batches(model, [fact.base_tokens for fact in facts], "base"):
            logits_NV = batch.next_logits()
            found |= zip(rows, self._divergences(rows, logits_NV, kept_NS), strict=True)
            batch.rows = rows
            completions.begin(batch, logits_NV)
        first = completions.finish()
        return [FactDrift(*found[i], first[i]) for i in range(len(facts))]

    def _load(self, side: Side, role: str) -> Any:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model = load_model(side.folder, side.name, self._dtype, self._trust)
        if side.adapter is not None:
            model = _with_adapter(model, side, len(side.tokenizer))
        self._is_large = model.get_memory_footprint() > _LARGE_BYTES
        self.dtypes[role] = str(model.dtype).removeprefix("torch.")
        return model.to(self._device)

    def _compare_vocabularies(self, finetuned: Any) -> SharedVocabulary:
        from transformers import AutoConfig

        base, other = self._comparison.base, self._comparison.finetuned
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=self._trust)
        return shared_vocabulary(
            *(base.tokenizer, other.tokenizer, config.get_text_config().vocab_size),
            finetuned.get_output_embeddings().weight.shape[0],
        )

    def _room(self, path: Path, n: int) -> np.memmap[Any, Any] | None:
        if not self._full:
            return None
        return np.memmap(path, dtype=np.float32, mode="w+", shape=(n, self.shared.size))

    def _batches(
        self, model: Any, prompts: Sequence[Sequence[int]], role: str
    ) -> Iterator[tuple[list[int], GreedyBatch]]:
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            yield rows, GreedyBatch(model, [prompts[i] for i in rows], 0)
            self._advance(f"Asking the {role} model", len(rows), len(order))

    def _divergences(
        self, rows: list[int], logits_NV: torch.Tensor, kept_NS: Any
    ) -> Iterator[_Divergences]:
        """Yield each fact's divergences: top ten, whole forth and whole back."""
        base_NS = self.shared.of(logits_NV)
        base_NK = base_NS.gather(1, self._ids_NK[rows].to(base_NS.device)).cpu()
        top_N = top_kl(self._values_NK[rows], base_NK).tolist()
        forth_N: list[float | None] = [None] * len(rows)
        back_N: list[float | None] = [None] * len(rows)
        if kept_NS is not None:
            tuned_NS = torch.from_numpy(kept_NS[rows]).to(base_NS.device)
            forth_N = divergence(tuned_NS, base_NS).tolist()
            back_N = divergence(base_NS, tuned_NS).tolist()
        yield from zip(top_N, forth_N, back_N, strict=True)


def _with_adapter(model: Any, side: Side, tokens: int) -> Any:
    """Return the model with its adapter merged into it."""
    from peft import PeftModel

    assert side.adapter is not None
    if tokens > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(tokens)
    return PeftModel.from_pretrained(model, str(side.adapter.folder)).merge_and_unload().eval()
