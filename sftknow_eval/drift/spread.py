"""Statistics of relative change that come out the same whatever order blocks arrive in.

Changes are counted in buckets (the upper 16 bits of the float32, so 1/128 of an octave).
Within a bucket the value is a linear function of the lower bits: the counts and the integer
sums of those bits give the exact sum of changes. Quantiles are interpolated within their
bucket, so they are good to 1%.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.drift import kernels
from sftknow_eval.drift.intrinsics import BUCKET_SHIFT
from sftknow_eval.drift.selection import Intervals
from sftknow_eval.drift.tensors import Array, Counts, Keys

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BASES = (np.arange(kernels.BUCKETS, dtype=np.uint32) << BUCKET_SHIFT).view(np.float32)
_BASES_64 = np.where(np.isfinite(_BASES), _BASES, np.inf).astype(np.float64)


def value(key: int) -> float:
    """Return the relative change whose float32 bits are `key`."""
    return float(np.uint32(key).view(np.float32))


def _sums(counts: Counts, lows: Counts) -> NDArray[np.float64]:
    """Return the sum of changes in each bucket."""
    exponents = np.arange(kernels.BUCKETS) >> (23 - BUCKET_SHIFT)
    steps = np.ldexp(1.0, np.maximum(exponents, 1) - 150)
    sums = np.multiply(counts, _BASES_64, out=np.zeros(kernels.BUCKETS), where=counts > 0)
    return np.asarray(sums + lows * steps)


def _quantiles(counts: Counts) -> tuple[float, ...]:
    ends = np.cumsum(counts)
    found = []
    for share in QUANTILES:
        rank = share * (ends[-1] - 1)
        bucket = int(np.searchsorted(ends, rank, side="right"))
        before = ends[bucket] - counts[bucket]
        within = (rank - before) / counts[bucket] if bucket else 0.0
        low, high = _BASES_64[bucket], _BASES_64[min(bucket + 1, kernels.BUCKETS - 1)]
        found.append(float(low + within * (high - low)) if np.isfinite(high) else float(low))
    return tuple(found)


@dataclass(frozen=True)
class Statistics:
    """Of one tensor's elements, or of all.

    Attributes:
        elements: how many.
        total: sum of relative changes.
        quantiles: of the relative change, at `QUANTILES`.
        change_norm: L2 norm of s - p.
        base_norm: L2 norm of p.
    """

    elements: int
    total: float
    quantiles: tuple[float, ...]
    change_norm: float
    base_norm: float

    @property
    def relative_norm(self) -> float | None:
        """L2 norm of the change over that of the base; None where the base is all zero."""
        return self.change_norm / self.base_norm if self.base_norm else None


class BlockSpread:
    """The buckets of one block; one object a thread."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._keys = np.empty(kernels.SUB_BLOCK, np.uint32)
        self.counts = np.zeros(kernels.BUCKETS, np.int64)
        self.lows = np.zeros(kernels.BUCKETS, np.int64)
        self.beyond_J = np.zeros((2, intervals.low.size), np.int64)
        self.squares = np.zeros(2)

    def measure(self, p: Array, s: Array, arithmetic: int) -> None:
        """Replace what is held by the statistics of this block."""
        for array in (self.counts, self.lows, self.squares):
            array[:] = 0
        for first in range(0, s.size, kernels.SUB_BLOCK):
            x, y = p[first : first + kernels.SUB_BLOCK], s[first : first + kernels.SUB_BLOCK]
            keys = self._keys[: y.size]
            kernels.fill_keys(x, y, kernels.TOP, arithmetic, np.uint64(0), 0, keys)
            kernels.spread(
                *(keys, self._intervals.marked, self._intervals.high),
                *(self.counts, self.lows, self.beyond_J[0], self.beyond_J[1]),
            )
        kernels.norms(p, s, self.squares)


class SpreadOfTensors:
    """Collects blocks; a tensor's buckets are let go once its last block is there."""

    def __init__(self, sizes: Sequence[int], block: int) -> None:
        self._left = [-(-size // block) for size in sizes]
        self._open: dict[int, tuple[Counts, Counts]] = {}
        self._squares: dict[int, list[tuple[float, float]]] = {}
        self._lock = threading.Lock()
        self._counts = np.zeros(kernels.BUCKETS, np.int64)
        self._lows = np.zeros(kernels.BUCKETS, np.int64)
        self.tensors: dict[int, Statistics] = {}

    def take(self, tensor: int, block: BlockSpread) -> None:
        """Add one block of a tensor."""
        with self._lock:
            counts, lows = self._open.setdefault(
                tensor, (np.zeros_like(self._counts), np.zeros_like(self._lows))
            )
            counts += block.counts
            lows += block.lows
            squares = self._squares.setdefault(tensor, [])
            squares.append((float(block.squares[0]), float(block.squares[1])))
            self._left[tensor] -= 1
            if not self._left[tensor]:
                del self._open[tensor]
                self.tensors[tensor] = _statistics(counts, lows, squares)
                self._counts += counts
                self._lows += lows

    def whole(self) -> Statistics:
        """Return the statistics of all tensors together."""
        squares = [pair for pairs in self._squares.values() for pair in pairs]
        return _statistics(self._counts, self._lows, squares)

    def above(self, blocks: Sequence[BlockSpread], intervals: Intervals, j: int) -> float:
        """Return the sum of changes above interval `j`."""
        bucket = int(intervals.high[j]) >> BUCKET_SHIFT
        counts, lows = self._counts.copy(), self._lows.copy()
        counts[bucket], lows[bucket] = np.sum([block.beyond_J[:, j] for block in blocks], axis=0)
        return math.fsum(_sums(counts, lows)[bucket:])


def _statistics(counts: Counts, lows: Counts, squares: Sequence[tuple[float, float]]) -> Statistics:
    return Statistics(
        elements=int(counts.sum()),
        total=math.fsum(_sums(counts, lows)),
        quantiles=_quantiles(counts),
        change_norm=math.sqrt(math.fsum(moved for moved, _ in squares)),
        base_norm=math.sqrt(math.fsum(size for _, size in squares)),
    )


def sum_above(blocks: Iterable[Keys], threshold: int) -> float:
    """Return the sum of the changes above a threshold, exact whatever the blocks are."""
    counts, lows = (np.zeros(kernels.BUCKETS, np.int64) for _ in range(2))
    for keys in blocks:
        beyond = keys[keys > threshold]
        buckets, low = beyond >> BUCKET_SHIFT, beyond & np.uint32((1 << BUCKET_SHIFT) - 1)
        counts += np.bincount(buckets, minlength=kernels.BUCKETS)
        # Sums of whole numbers below 2**53 are exact in float64.
        lows += np.bincount(buckets, low, minlength=kernels.BUCKETS).astype(np.int64)
    return math.fsum(_sums(counts, lows))
