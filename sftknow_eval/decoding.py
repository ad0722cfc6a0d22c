"""Batches that are continued greedily, and shrink as their rows end.

A forward pass computes the logits of the last position only. Prompts of several lengths are
padded on the left, as transformers does when it generates.

Legend: N rows, L tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

# Rows are taken out of a batch when at least this share of them has ended.
_ENDED_SHARE = 0.1


class GreedyBatch:
    """Prompts that are continued together; those that have ended are taken out.

    Args:
        model: of transformers, with an ordinary key-value cache.
        prompts: tokens of each.
        pad: token to fill up shorter prompts with, on the left.

    Attributes:
        rows: which prompt each row of the batch continues.
        alive: whether it is to be continued; the caller says so.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad: int) -> None:
        longest = max(map(len, prompts))
        tokens = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self._model = model
        self._tokens_NL = torch.tensor(tokens, device=model.device)
        self._mask_NL = torch.tensor(mask, device=model.device)
        self._position_NL = (self._mask_NL.cumsum(-1) - 1).clamp(min=0)
        self._padded = any(len(prompt) < longest for prompt in prompts)
        self._cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        known = inspect.signature(model.forward).parameters
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._positions = "position_ids" in known
        self.rows = list(range(len(prompts)))
        self.alive = [True] * len(prompts)

    def next_logits(self) -> torch.Tensor:
        """Return the logits of the next token of each row, float32 (N, V)."""
        given = {"position_ids": self._position_NL} if self._positions else {}
        output = self._model(
            input_ids=self._tokens_NL,
            attention_mask=self._mask_NL if self._padded else None,
            past_key_values=self._cache,
            use_cache=True,
            **given,
            **self._keep,
        )
        last_NV: torch.Tensor = output.logits[:, -1].float()
        return last_NV

    def go_on(self, token_N: torch.Tensor) -> None:
        """Append a token to each row; take out the rows that have ended."""
        mask_NL, position_NL = self._mask_NL, self._position_NL[:, -1:]
        left = [place for place, alive in enumerate(self.alive) if alive]
        if len(left) <= (1 - _ENDED_SHARE) * len(self.rows):
            kept = torch.tensor(left, device=token_N.device)
            self._cache.batch_select_indices(kept)
            token_N, mask_NL, position_NL = token_N[kept], mask_NL[kept], position_NL[kept]
            self.rows = [self.rows[place] for place in left]
            self.alive = [True] * len(left)
        self._tokens_NL, self._position_NL = token_N[:, None], position_NL + 1
        self._mask_NL = torch.cat([mask_NL, mask_NL.new_ones(len(mask_NL), 1)], dim=1)
