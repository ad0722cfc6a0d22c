"""Restore runs of one tensor's elements: from a recipe's threshold, or from a mask."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sftknow_eval.drift import kernels
from sftknow_eval.drift.scan import Ranking
from sftknow_eval.drift.tensors import HELD_AS, Array, as_float, cast
from sftknow_eval.restoration.mask import Mask
from sftknow_eval.restoration.recipe import Recipe

_DTYPE_OF = {held: name for name, held in HELD_AS.items()}


_NOTHING = ((1 << 31) - 1, 0, 0)  # no key lies above, and no tie is restored


class TensorRestorer(Protocol):
    """Restores blocks of one tensor; `in_order` if they must come in order."""

    @property
    def in_order(self) -> bool:
        """Whether a block depends on the ones before it."""

    def block(self, p: Array, s: Array, start: int, out_JN: Array, skip: int = 0) -> None:
        """Write the restored block for each recipe.

        Args:
            p: the base's values as stored, from flat index `start` on.
            s: the fine-tune's; not shorter. What is beyond `p` is copied.
            start: flat index of the first element.
            out_JN: a row for each recipe, contiguous.
            skip: column at which the blocks begin.
        """


def _bits(values: Array) -> Array:
    """Return values as integers of the same size: selection never changes a bit."""
    return values.view(f"u{values.itemsize}")


class BlockRestorer:
    """Restores the blocks of one tensor in order, for several recipes at once.

    Args:
        ranking: the recipes' common order, arithmetic and seed.
        name: the tensor's name in the ranking.
        borders: threshold, tied elements and quota of each recipe.
    """

    def __init__(self, ranking: Ranking, name: str, borders: list[tuple[int, int, int]]) -> None:
        self._ranking, self._name = ranking, name
        self._stream = ranking.stream(name)
        self._thresholds = [threshold for threshold, _, _ in borders]
        self._tied = [tied for _, tied, _ in borders]
        self._left = [quota for _, _, quota in borders]
        self._keys = np.empty(kernels.SUB_BLOCK, np.uint32)

    @property
    def in_order(self) -> bool:
        """Whether the blocks must come in order: some, but not all, ties are restored."""
        return any(0 < left < tied for left, tied in zip(self._left, self._tied, strict=True))

    def block(self, p: Array, s: Array, start: int, out_JN: Array, skip: int = 0) -> None:
        """Write the block for every recipe."""
        values = cast(p, _DTYPE_OF[s.dtype])
        borders = [
            threshold - (1 if tied and left == tied else 0)
            for threshold, tied, left in zip(self._thresholds, self._tied, self._left, strict=True)
        ]
        common = s[: p.size]
        kernels.sweep(
            *(as_float(p), as_float(common), _bits(values), _bits(common)),
            *(*self._ranking.codes, self._stream, start, np.array(borders, np.int32)),
            *(self._keys, _bits(out_JN), skip),
        )
        if self.in_order:
            self._ties(p, values, common, start, out_JN[:, skip:])
        out_JN[:, skip + p.size : skip + s.size] = s[p.size :]

    def _ties(self, p: Array, values: Array, s: Array, start: int, out_JN: Array) -> None:
        """Bring back the first tied elements where only some of a tensor's are restored."""
        keys = np.empty(s.size, np.uint32)
        self._ranking.fill(self._name, as_float(p), as_float(s), start, keys)
        for j, (threshold, tied) in enumerate(zip(self._thresholds, self._tied, strict=True)):
            # `left` may meet `tied` only at zero here: a full quota needs no order.
            if 0 < self._left[j] < tied:
                places = np.flatnonzero(keys == threshold)[: self._left[j]]
                out_JN[j, places] = values[places]
                self._left[j] -= places.size


class MaskRestorer:
    """Restores the elements that a mask names."""

    in_order = False

    def __init__(self, mask: Mask, name: str) -> None:
        self._mask, self._name = mask, name

    def block(self, p: Array, s: Array, start: int, out_JN: Array, skip: int = 0) -> None:
        """Write the block; there is one row."""
        out = out_JN[0, skip : skip + s.size]
        chosen = self._mask.bits(self._name, start, p.size)
        out[: p.size] = np.where(
            chosen, _bits(cast(p, _DTYPE_OF[s.dtype])), _bits(s[: p.size])
        ).view(s.dtype)
        out[p.size :] = s[p.size :]


def restorer(restoration: Recipe | Mask, name: str) -> TensorRestorer:
    """Return the restorer of one of the restoration's tensors."""
    if isinstance(restoration, Mask):
        return MaskRestorer(restoration, name)
    return sweep_restorer([restoration], name)


def sweep_restorer(recipes: list[Recipe], name: str) -> BlockRestorer:
    """Return the restorer of one tensor for several recipes from one pass."""
    borders = []
    for recipe in recipes:
        found = recipe.tensor(name)
        borders.append((recipe.key, found[1].tied, found[1].quota) if found else _NOTHING)
    return BlockRestorer(recipes[0].ranking, recipes[0].ranked_name(name), borders)
