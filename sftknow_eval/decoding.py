"""Batches that are continued greedily, and shrink as their rows end.

A forward pass computes the logits of the last position only. Prompts of several lengths are
padded on the left, as transformers does when it generates.

Legend: N rows, L tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

# Rows are taken out of a batch when at least this share of them has ended.
_ENDED_SHARE = 0.1


class GreedyBatch:
    """Prompts that are continued together; those that have ended are taken out.

    Args:
        model: of transformers, with an ordinary key-value cache.
        prompts: tokens of each.
        filler: token to fill up shorter prompts with, on the left.

    Attributes:
        rows: which prompt each row of the batch continues.
        alive: whether it is to be continued; the caller says so.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], filler: int) -> None:
        longest = max(map(len, prompts))
        tokens = [[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
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

    @classmethod
    def joined(cls, batches: Sequence[GreedyBatch]) -> list[GreedyBatch]:
        """Return one batch that goes on with the rows of several, each after its first token.

        They are left apart where a layer of the cache keeps only the latest tokens.
        """
        layers = [layer for batch in batches for layer in batch._cache.layers]
        if len(batches) < 2 or any(type(layer) is not DynamicLayer for layer in layers):
            return list(batches)
        whole, longest = copy.copy(batches[0]), max(b._mask_NL.shape[1] for b in batches)
        room = [longest - batch._mask_NL.shape[1] for batch in batches]
        pairs = list(zip(batches, room, strict=True))
        whole._cache = DynamicCache()
        for i in range(len(batches[0]._cache.layers)):
            keys, values = (
                torch.cat([pad(getattr(b._cache.layers[i], name), (0, 0, n, 0)) for b, n in pairs])
                for name in ("keys", "values")
            )
            whole._cache.update(keys, values, i)
        whole._mask_NL = torch.cat([pad(batch._mask_NL, (n, 0)) for batch, n in pairs])
        whole._tokens_NL = torch.cat([batch._tokens_NL for batch in batches])
        whole._position_NL = torch.cat([batch._position_NL for batch in batches])
        whole._padded = True
        whole.rows = [row for batch in batches for row in batch.rows]
        whole.alive = [alive for batch in batches for alive in batch.alive]
        return [whole]

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
