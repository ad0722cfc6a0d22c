"""Exact order statistics of billions of keys from one pass and a small sample.

A sample gives, around each wanted rank, a narrow interval of keys that almost surely holds
the rank's key. One pass counts the keys above each interval and keeps those inside: the
threshold is then exact, whatever the sample was. An interval that missed (the counts show
it) is replaced by one that holds the key for certain, found by two histogram passes.

Elements with equal keys are restored in canonical order, tensor name sorted, then flat
index: each tensor gets a quota of its elements at the threshold, so that any tensor can be
restored alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.drift import kernels
from sftknow_eval.drift.counting import SHARED
from sftknow_eval.drift.intrinsics import BUCKET_SHIFT
from sftknow_eval.drift.kept import Kept
from sftknow_eval.drift.tensors import Counts, Keys

LARGEST = (1 << 31) - 1  # keys lie below 2**31
_SAMPLE_FLOOR, _SAMPLE_CAP = 1 << 16, 1 << 21
_DEVIATIONS = 4.5


def restored_elements(elements: int, ratio: float) -> int:
    """Return floor(elements * ratio / 100), computed without rounding errors.

    Source: protocol, "Choices the paper leaves open": K = floor(n * k / 100).
    """
    return math.floor(elements * Fraction(str(ratio)) / 100)


def sample_size(elements: int) -> int:
    """Return how many keys to sample.

    A larger sample lets fewer keys through, whose number falls with its square root: both
    together cost least at about this power. The cap keeps memory the same in larger models.
    """
    return max(_SAMPLE_FLOOR, min(int(3 * elements ** (2 / 3)), _SAMPLE_CAP))


@dataclass(frozen=True)
class Intervals:
    """Closed intervals of keys and the buckets that they touch.

    Attributes:
        low: of each interval.
        high: of each interval.
        marked: for each bucket, 1 + j where interval j alone touches it, `SHARED` where several
            do, else 0.
        of_rank: which interval holds the key of a wanted rank (1 is the largest key).
        active: the intervals that hold more than the key of elements that did not change; those
            are counted anyway.
        groups: of each active interval, without that key, the buckets of the high and of the
            low end, and their difference, as rows.
    """

    low: Keys
    high: Keys
    marked: NDArray[np.uint8]
    of_rank: Mapping[int, int]
    active: Counts
    groups: NDArray[np.uint16]

    @classmethod
    def of(cls, ends: Mapping[int, tuple[int, int]], still: int) -> Intervals:
        """Lay out the intervals of the wanted ranks, equal ones once.

        Args:
            ends: for each rank, the smallest and the largest key that it may have.
            still: the key of elements that did not change, and the only one in its bucket.
        """
        distinct = sorted(set(ends.values()))
        marked = np.zeros(kernels.BUCKETS, np.uint8)
        active, groups = [], []
        for j, (low, high) in enumerate(distinct):
            first, last = low >> BUCKET_SHIFT, high >> BUCKET_SHIFT
            if low == still:
                first += 1
            elif high == still:
                last -= 1
            if first <= last:
                active.append(j)
                groups.append((high >> BUCKET_SHIFT, first, last - first))
                touched = marked[first : last + 1]
                touched[:] = np.where(touched == 0, min(j + 1, SHARED), SHARED)
        return cls(
            np.array([low for low, _ in distinct], np.uint32),
            np.array([high for _, high in distinct], np.uint32),
            marked,
            {rank: distinct.index(pair) for rank, pair in ends.items()},
            np.array(active, np.int64),
            np.array(groups, np.uint16).reshape(-1, 3).T.copy(),
        )


def estimate(
    sample: Keys, elements: int, wanted: Sequence[int], largest: int = LARGEST
) -> dict[int, tuple[int, int]]:
    """Estimate from a sample between which keys the wanted ranks' keys lie.

    Args:
        sample: keys of elements spread evenly, or of all of them. Rows of neighbours, if it has
            rows: they are alike, and the margin is theirs and not that of single elements.
        elements: number of elements of the whole.
        wanted: ranks (1 is the largest key).
        largest: no key lies above.
    """
    flat = np.sort(sample, axis=None)
    size = flat.size
    places = {}
    for rank in wanted:
        middle = size - rank / elements * size
        if size == elements:
            margin = 0.0
        elif sample.ndim == 2:
            above_PN = (sample > flat[min(size - 1, int(middle))]).view(np.uint8)
            share_P = above_PN.sum(axis=1, dtype=np.uint16) / sample.shape[1]
            margin = _DEVIATIONS * float(share_P.std()) * size / math.sqrt(len(sample)) + 64
        else:
            margin = _DEVIATIONS * math.sqrt(middle * (size - middle) / size) + 64
        places[rank] = math.floor(middle - margin), math.ceil(middle + margin)
    return {
        rank: (int(flat[a]) if a >= 0 else 0, int(flat[b]) if b < size else largest)
        for rank, (a, b) in places.items()
    }


@dataclass
class Tally:
    """Where the keys of every tensor lie relative to the intervals.

    Shapes: T tensors, J intervals.
    """

    above_TJ: Counts
    at_low_TJ: Counts
    at_high_TJ: Counts

    @classmethod
    def zero(cls, tensors: int, intervals: int) -> Tally:
        """Return a tally of nothing."""
        return cls(*(np.zeros((tensors, intervals), np.int64) for _ in range(3)))

    def add_still(
        self, intervals: Intervals, still: int, still_T: Counts, changed_T: Counts
    ) -> None:
        """Count the elements that did not change, whose key the kernels leave to the caller.

        That key is the smallest or the largest that there is, so it is never strictly inside.
        """
        for j, (low, high) in enumerate(zip(intervals.low, intervals.high, strict=True)):
            if low == high == still:
                self.above_TJ[:, j] = 0 if still else changed_T
            if high == still:
                self.at_high_TJ[:, j] += still_T
            elif low == still:
                self.at_low_TJ[:, j] += still_T

    def add(self, other: Tally) -> None:
        """Add what another thread counted."""
        self.above_TJ += other.above_TJ
        self.at_low_TJ += other.at_low_TJ
        self.at_high_TJ += other.at_high_TJ


@dataclass(frozen=True)
class Cut:
    """The exact border between restored and kept elements for one ratio.

    Elements with keys above `threshold` are restored, and of those at the threshold the
    first `quota_T[t]` of each tensor.
    """

    wanted: int
    threshold: int
    above_T: Counts = field(repr=False)
    tied_T: Counts = field(repr=False)
    quota_T: Counts = field(repr=False)

    @property
    def restored_T(self) -> Counts:
        """Restored elements of each tensor."""
        return self.above_T + self.quota_T


def _quotas(tied_T: Counts, left: int) -> Counts:
    before = np.cumsum(tied_T) - tied_T
    return np.clip(left - before, 0, tied_T)


def settle(tally: Tally, kept: Kept, intervals: Intervals, wanted: int) -> Cut | None:
    """Return the exact cut at a rank, or None if its key lies outside the rank's interval."""
    j = intervals.of_rank[wanted]
    above_T = tally.above_TJ[:, j].copy()
    left = wanted - int(above_T.sum())
    if left <= 0:
        return None
    high_T, low_T = tally.at_high_TJ[:, j], tally.at_low_TJ[:, j]
    if left <= high_T.sum():
        return Cut(wanted, int(intervals.high[j]), above_T, high_T, _quotas(high_T, left))
    above_T += high_T
    left -= int(high_T.sum())
    low, high, inside = int(intervals.low[j]), int(intervals.high[j]), kept.size(j)
    if left <= inside:
        threshold = kept.at_rank(j, left, low, high)
        beyond_T, tied_T = kept.beyond(j, threshold, above_T.size)
        left -= int(beyond_T.sum())
        return Cut(wanted, threshold, above_T + beyond_T, tied_T, _quotas(tied_T, left))
    above_T += kept.beyond(j, low, above_T.size)[0]
    left -= inside
    if left <= low_T.sum():
        return Cut(wanted, low, above_T, low_T, _quotas(low_T, left))
    return None


def nothing(tensors: int) -> Cut:
    """Return the cut that restores no element."""
    zero = np.zeros(tensors, np.int64)
    return Cut(0, LARGEST, zero, zero, zero)


def search(blocks: Iterable[Iterator[Keys]], wanted: Sequence[int]) -> list[int]:
    """Return the exact keys at the wanted ranks by two histogram passes.

    Args:
        blocks: two passes over all keys, each an iterator of blocks.
        wanted: ranks (1 is the largest key).
    """
    first, second = blocks
    upper = np.zeros(kernels.BUCKETS, np.int64)
    for keys in first:
        upper += np.bincount(keys >> BUCKET_SHIFT, minlength=kernels.BUCKETS)
    descending = np.cumsum(upper[::-1])
    buckets = [kernels.BUCKETS - 1 - int(np.searchsorted(descending, rank)) for rank in wanted]
    lower = {bucket: np.zeros(1 << BUCKET_SHIFT, np.int64) for bucket in buckets}
    for keys in second:
        place = keys >> BUCKET_SHIFT
        for bucket, counts in lower.items():
            low = keys[place == bucket] & np.uint32((1 << BUCKET_SHIFT) - 1)
            counts += np.bincount(low, minlength=counts.size)
    found = []
    for rank, bucket in zip(wanted, buckets, strict=True):
        left = rank - int(upper[bucket + 1 :].sum())
        within = np.cumsum(lower[bucket][::-1])
        low = (1 << BUCKET_SHIFT) - 1 - int(np.searchsorted(within, left))
        found.append((bucket << BUCKET_SHIFT) | low)
    return found
