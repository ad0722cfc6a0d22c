"""Restore one tensor: a pure function of restoration, name and the two tensors.

Whoever has whole tensors in hand (a loader, a state dict) calls `restore_tensor` for each;
the writer uses the same blocks on what it streams. NumPy arrays hold bfloat16 as uint16.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.drift.tensors import (
    BLOCK,
    Array,
    BlockReader,
    Compared,
    as_float,
    tensor_checksum,
)
from sftknow_eval.errors import CheckpointError
from sftknow_eval.restoration.blocks import restorer
from sftknow_eval.restoration.checkpoint import Checkpoint, ModelWeights
from sftknow_eval.restoration.mask import Mask
from sftknow_eval.restoration.memory import MEMORY, TensorMemory
from sftknow_eval.restoration.recipe import Recipe

if TYPE_CHECKING:
    import torch


def check_tensor(recipe: Recipe, name: str, base: Array, finetuned: Array) -> None:
    """Refuse tensors that are not the recipe's own.

    Raises:
        CheckpointError: names the tensor and the checkpoint that differs.
    """
    found = recipe.tensor(name)
    if found is None:
        return
    for role, tensor, wanted in (
        ("base", base, found[1].base),
        ("fine-tune", finetuned, found[1].finetuned),
    ):
        if tensor_checksum(tensor) != wanted:
            raise recipe.mismatch(name, role)


def restore_tensor(
    restoration: Recipe | Mask,
    name: str,
    base: Array,
    finetuned: Array,
    *,
    check: bool = True,
    memory: TensorMemory | None = None,
) -> Array:
    """Return one tensor of the restored model.

    Args:
        restoration: which elements go back.
        name: the fine-tune's name of the tensor.
        base: the base's whole tensor as stored (bfloat16 as uint16).
        finetuned: the fine-tune's.
        check: compare both with the recipe's checksums (a few percent of the time).
        memory: where the result is put, if not into fresh memory.

    Returns:
        An array of the fine-tune's shape and type; the fine-tune's own if nothing changes.

    Raises:
        CheckpointError: a tensor is not the recipe's own, or does not fit the mask.
    """
    if name not in restoration.names:
        return finetuned
    if isinstance(restoration, Mask):
        restoration.check(name, finetuned.size)
    elif check:
        check_tensor(restoration, name, base, finetuned)
    p, s = (np.ascontiguousarray(side).reshape(-1) for side in (base, finetuned))
    out = np.empty_like(s) if memory is None else memory.lend(s.size, s.dtype)
    blocks = restorer(restoration, name)
    for start in range(0, s.size, BLOCK):
        end = min(s.size, start + BLOCK)
        blocks.block(p[start:end], s[start:end], start, out[None, start:end])
    return out.reshape(finetuned.shape)


def chosen_elements(
    recipe: Recipe, name: str, base: ModelWeights, finetuned: ModelWeights
) -> NDArray[np.bool_]:
    """Return which elements of a tensor a recipe restores, in flat order."""
    chosen = np.zeros(finetuned.tensors[name].elements, bool)
    found = recipe.tensor(name)
    if found is None:
        return chosen
    ranked, tensor = found
    base_name = recipe.base_name(name)
    compared = Compared(
        *(name, base_name, finetuned.tensors[name].dtype, base.tensors[base_name].dtype),
        *(finetuned.tensors[name].elements, base.tensors[base_name].elements),
    )
    reader, left = BlockReader(base, finetuned), tensor.quota
    for start in range(0, compared.common, BLOCK):
        p, s = map(as_float, reader.pair(compared, start, min(BLOCK, compared.common - start)))
        keys = np.empty(s.size, np.uint32)
        recipe.ranking.fill(ranked, p, s, start, keys)
        part = chosen[start : start + s.size]
        part[:] = keys > recipe.key
        tied = np.flatnonzero(keys == recipe.key)[:left]
        part[tied] = True
        left -= tied.size
    return chosen


def restore_torch(
    restoration: Recipe | Mask,
    name: str,
    base: Array,
    finetuned: torch.Tensor,
    *,
    check: bool = True,
    memory: TensorMemory | None = None,
) -> torch.Tensor:
    """Return one tensor of the restored model as PyTorch tensor on the CPU.

    Args:
        restoration: which elements go back.
        name: the fine-tune's name of the tensor.
        base: the base's whole tensor as stored, for example from a `RestorationSource`.
        finetuned: the fine-tune's tensor, bfloat16, float16 or float32.
        check: compare both with the recipe's checksums.
        memory: where the result is put, if not into fresh memory.

    Raises:
        CheckpointError: a tensor is not the recipe's own, or does not fit the mask.
    """
    import torch

    if name not in restoration.names:
        return finetuned
    tensor = finetuned.detach().cpu().contiguous()
    if tensor.dtype != torch.bfloat16:
        return torch.from_numpy(
            restore_tensor(restoration, name, base, tensor.numpy(), check=check, memory=memory)
        )
    held = tensor.view(torch.int16).numpy().view(np.uint16)
    restored = restore_tensor(restoration, name, base, held, check=check, memory=memory)
    return torch.from_numpy(restored.view(np.int16)).view(torch.bfloat16)


class RestorationSource:
    """The base's side of a restoration while a fine-tune loads: tensors by name, one at a time.

    Notes which tensors were asked for, so that a loader can make sure at its end that all were.
    """

    def __init__(self, base: Path, restoration: Recipe | Mask) -> None:
        self.restoration = restoration
        self._base = Checkpoint.open(base)
        self._used: set[str] = set()
        # Fresh memory for each tensor would cost more than reading into it.
        self._buffer = np.empty(0, np.uint8)

    @property
    def names(self) -> frozenset[str]:
        """The fine-tune's names of all tensors that are restored."""
        return self.restoration.names

    @property
    def missing(self) -> list[str]:
        """Tensors to restore that nobody asked for yet; of tied ones, one is enough."""
        used = {self.restoration.ranked_name(name) for name in self._used}
        return sorted(n for n in self.names if self.restoration.ranked_name(n) not in used)

    def base(self, name: str) -> Array:
        """Return the base's tensor for the fine-tune's tensor `name`.

        Raises:
            CheckpointError: the base has no such tensor, or it cannot be read.
        """
        return self._read(name, None)

    def _read(self, name: str, buffer: NDArray[np.uint8] | None) -> Array:
        base_name = self.restoration.base_name(name)
        if base_name not in self._base.tensors:
            raise CheckpointError(
                f"The base {self._base.folder} has no tensor '{base_name}', which is to be "
                "restored. Give the base for which the recipe or mask was made."
            )
        self._used.add(name)
        return self._base.array(base_name, buffer)

    def restore(self, name: str, finetuned: torch.Tensor, *, check: bool = True) -> torch.Tensor:
        """Return the restored tensor; the very same object if it is left alone.

        Not for two threads at a time: the base's tensor goes through one buffer.
        """
        if name not in self.names:
            return finetuned
        size = 4 * finetuned.numel()
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        base = self._read(name, self._buffer)
        return restore_torch(self.restoration, name, base, finetuned, check=check, memory=MEMORY)

    def close(self) -> None:
        """Close the base's files."""
        MEMORY.release()
        self._base.close()

    def __enter__(self) -> RestorationSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
