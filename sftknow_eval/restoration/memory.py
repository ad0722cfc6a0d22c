"""Memory for restored tensors, used again as soon as nobody holds the tensor any more.

Fresh memory costs more than what is computed into it: the system clears each page at its first
use. An engine that copies what it is given (vLLM), or drops what is replaced (a swap), lets go of
one tensor before it takes the next; then the same memory serves for both.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 1 << 20  # bytes; below, the interpreter's own memory is as good
_KEPT = 1 << 25  # bytes that may lie free, or one tensor: what a layer's tensors take
_HUGE_PAGE = 1 << 21


def _fresh(size: int) -> mmap.mmap:
    """Return new memory, cleared by the system in large pages if it has them."""
    whole = -(-size // _HUGE_PAGE) * _HUGE_PAGE
    memory = mmap.mmap(
        -1,
        whole if whole - size < size // 8 else size,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class TensorMemory:
    """Lends memory and takes it back by itself; keeps a little of what is free."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}
        self._bytes = 0

    def lend(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of `count` elements with any content."""
        size = count * dtype.itemsize
        if size < _SMALL:
            return np.empty(count, dtype)
        free = self._free.get(size)
        if free:
            memory = free.pop()
            self._bytes -= size
        else:
            memory = _fresh(size)
        # Whoever holds the array, or a tensor over it, holds this object.
        lent = (ctypes.c_char * size).from_buffer(memory)
        weakref.finalize(lent, self._take_back, size, memory).atexit = False
        array: NDArray[Any] = np.frombuffer(lent, dtype)  # type: ignore[call-overload]
        return array

    def _take_back(self, size: int, memory: mmap.mmap) -> None:
        if self._bytes + size <= max(_KEPT, size):
            self._free.setdefault(size, []).append(memory)
            self._bytes += size

    def release(self) -> None:
        """Let go of what is free now."""
        self._free.clear()
        self._bytes = 0


# One for the process: the tensors that a swap replaces are of the load before.
MEMORY = TensorMemory()
