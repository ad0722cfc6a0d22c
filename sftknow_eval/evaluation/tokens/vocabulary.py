"""Which token ids mean the same to both models.

A fine-tune may have added tokens, or given reserved ones a use. Those have no counterpart in
the base: distributions are compared over the ids that both spell alike, and how many are left
out is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sftknow_eval.errors import OtherBase

_LEAST_SHARED = 0.5


@dataclass(frozen=True, slots=True)
class SharedVocabulary:
    """The ids that both models have logits for and both tokenizers spell alike.

    Attributes:
        ids: in order, (S,).
        base_size, finetuned_size: logits of each model.
    """

    ids: torch.Tensor
    base_size: int
    finetuned_size: int

    @property
    def size(self) -> int:
        """How many ids are shared."""
        return len(self.ids)

    @property
    def left_out(self) -> int:
        """How many of the fine-tune's ids are not shared."""
        return self.finetuned_size - self.size

    def of(self, logits_NV: torch.Tensor) -> torch.Tensor:
        """Return the logits of the shared ids, (N, S)."""
        if self.size and int(self.ids[-1]) == self.size - 1:
            return logits_NV[:, : self.size]
        return logits_NV.index_select(1, self.ids.to(logits_NV.device))

    def describe(self) -> dict[str, int]:
        """Return what goes into the results."""
        sizes = {"base": self.base_size, "finetuned": self.finetuned_size}
        return sizes | {"shared": self.size, "finetuned_left_out": self.left_out}


def shared_vocabulary(
    base_tokenizer: Any, finetuned_tokenizer: Any, base_size: int, finetuned_size: int
) -> SharedVocabulary:
    """Return the shared ids of two models, given the sizes of their output layers.

    Ids that neither tokenizer uses (output layers are often padded) count as shared.

    Raises:
        OtherBase: the tokenizers have little in common.
    """
    ours, theirs = (
        {number: token for token, number in tokenizer.get_vocab().items()}
        for tokenizer in (base_tokenizer, finetuned_tokenizer)
    )
    both = range(min(base_size, finetuned_size))
    shared = [number for number in both if ours.get(number) == theirs.get(number)]
    if len(shared) < _LEAST_SHARED * base_size:
        raise OtherBase(
            f"Base and fine-tune spell only {len(shared)} of {base_size} token ids alike, so their "
            "distributions cannot be compared. Give the base that the fine-tune was made from."
        )
    return SharedVocabulary(torch.tensor(shared), base_size, finetuned_size)
