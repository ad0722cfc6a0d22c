"""The tensors of a pair, read block by block, and their types and checksums.

A block is a run of 2**18 elements of one tensor. bfloat16 values are held as uint16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

BLOCK = 1 << 18
Array = NDArray[Any]
Keys = NDArray[np.uint32]  # what elements are ranked by, see `kernels`
Counts = NDArray[np.int64]

# How each safetensors type is held; bfloat16 as its 16 bits.
HELD_AS: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}


class Weights(Protocol):
    """Tensors that can be read piece by piece: a checkpoint, or an adapter merged as read."""

    def read(self, name: str, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of tensor `name` from byte `offset` on."""

    def gather(self, name: str, offsets: NDArray[np.int64], out_PN: NDArray[np.uint8]) -> None:
        """Fill row p of `out_PN` with the bytes of tensor `name` from byte `offsets[p]` on."""


@dataclass(frozen=True)
class Compared:
    """One tensor of the region, present in both checkpoints.

    Attributes:
        name: as the fine-tune calls it.
        base_name: as the base calls it.
        dtype: the fine-tune's type, in safetensors' spelling.
        base_dtype: the base's.
        elements: elements of the fine-tune's tensor.
        base_elements: elements of the base's tensor; fewer if rows were added.
        layer: number of its layer, if it belongs to one.
        module: its place within the layer, such as `self_attn.q_proj`.
    """

    name: str
    base_name: str
    dtype: str
    base_dtype: str
    elements: int
    base_elements: int
    layer: int | None = None
    module: str = ""

    @property
    def common(self) -> int:
        """Elements that both have: the first ones."""
        return min(self.elements, self.base_elements)


def as_float(values: Array) -> Array:
    """Return values as the kernels take them: uint16 (bfloat16) and float32 as they are."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def cast(values: Array, dtype: str) -> Array:
    """Return base values (bfloat16 as uint16) in the type of the fine-tune, rounded to nearest."""
    held = HELD_AS[dtype]
    if values.dtype == held:
        return values
    if values.dtype == np.uint16:
        wide = (values.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = values.astype(np.float32)
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return wide.astype(held)
    bits = wide.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class BlockReader:
    """The buffers with which one thread reads blocks of a pair."""

    def __init__(self, base: Weights, finetuned: Weights, size: int = BLOCK) -> None:
        self._sides = (base, finetuned)
        self._buffers = tuple(np.empty(4 * size, np.uint8) for _ in self._sides)

    def read(self, side: int, name: str, dtype: str, start: int, count: int) -> Array:
        """Return `count` elements from flat index `start`; valid until the next call."""
        held = HELD_AS[dtype]
        buffer = self._buffers[side][: count * held.itemsize]
        if count:
            self._sides[side].read(name, start * held.itemsize, buffer)
        return buffer.view(held)

    def pair(self, tensor: Compared, start: int, count: int) -> tuple[Array, Array]:
        """Return the same elements of both sides, as stored."""
        p = self.read(0, tensor.base_name, tensor.base_dtype, start, count)
        return p, self.read(1, tensor.name, tensor.dtype, start, count)


def checksum(digests: Iterable[int]) -> str:
    """Return a tensor's checksum from those of its blocks (XXH3, 64 bits, each)."""
    return xxhash.xxh3_64_hexdigest(b"".join(digest.to_bytes(8, "little") for digest in digests))


def tensor_checksum(tensor: NDArray[np.generic]) -> str:
    """Return the checksum of a whole tensor: that of its blocks' checksums."""
    flat = np.ascontiguousarray(tensor).reshape(-1)
    starts = range(0, flat.size, BLOCK)
    return checksum(xxhash.xxh3_64_intdigest(flat[i : i + BLOCK].data) for i in starts)


class Digests:
    """XXH3 of all blocks of both sides, the tensors' blocks one after the other.

    Attributes:
        first: number of each tensor's first block.
        of_block: the digests, a row a side.
    """

    def __init__(self, tensors: Sequence[Compared]) -> None:
        self._sizes = [(tensor.base_elements, tensor.elements) for tensor in tensors]
        blocks = [-(-max(sizes) // BLOCK) for sizes in self._sizes]
        self.first = [0, *accumulate(blocks)]
        self.of_block = np.zeros((2, self.first[-1]), np.uint64)

    def of_tensors(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return every tensor's checksum, base and fine-tune."""
        base, finetuned = (
            tuple(
                checksum(row[first : first - (-sizes[side] // BLOCK)].tolist())
                for first, sizes in zip(self.first, self._sizes, strict=False)
            )
            for side, row in enumerate(self.of_block)
        )
        return base, finetuned
