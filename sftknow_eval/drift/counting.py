"""Compiled counting: where the keys of a block lie relative to intervals of keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftknow_eval.drift.intrinsics import BUCKET_SHIFT, bucket, larger, one_other
from sftknow_eval.drift.kernels import (
    BOTTOM,
    FLOAT32,
    INFINITE,
    RANDOM,
    SUB_BLOCK,
    TOP,
    compiled,
    fill_keys,
    random_keys,
    still_key,
)
from sftknow_eval.drift.vectors import GROUP, LANES, lowest, ones, place_keys, place_pair

SHARED = 255  # the mark of a bucket that several intervals touch

_INFINITE = np.uint32(INFINITE)
_SHIFT = np.uint32(BUCKET_SHIFT)
_ZERO = np.uint32(0)
_ONE = np.uint64(1)


@compiled
def count_moved(keys: Any, still: Any) -> Any:
    """Return how many keys differ from `still`."""
    count = _ZERO
    for i in range(keys.size):
        count = one_other(count, keys[i], still)
    return np.int64(count)


@compiled
def place(
    p: Any, s: Any, keys: Any, alone: bool, size: int, groups: Any, flags: Any, counts: Any
) -> Any:
    """Count keys above every interval's bucket and flag those in its buckets.

    Args:
        p: values of the base.
        s: values of the fine-tune.
        keys: receives the keys if `alone`, else holds `size` of them; may be longer.
        alone: compute the keys here, float32's relative change.
        size: of the block.
        groups: for each active interval, the bucket of the high end, that of the low end, and
            their difference, as rows.
        flags: one bit for each key, zeros before.
        counts: see `place_keys`.

    Returns:
        The largest bucket.
    """
    round_size = -(-size // LANES) * LANES
    keys[size:round_size] = 0  # above nothing
    short = flags.view(np.uint16)
    largest, number = np.uint16(0), groups.shape[1]
    for first in range(0, max(number, 1), GROUP):
        highs, lows, widths = (
            groups[0, first : first + GROUP],
            groups[1, first : first + GROUP],
            groups[2, first : first + GROUP],
        )
        if alone and first == 0 and size == round_size:
            largest = place_pair(p, s, keys[:size], highs, lows, widths, short, counts)
        else:
            kept = counts[first]  # where a group counts again what is not in the first bucket
            found = place_keys(keys[:round_size], highs, lows, widths, short, counts[first:])
            largest = max(largest, found)
            if first:
                counts[first] = kept
    for i in range(size, round_size):
        flags[i >> 6] &= ~(np.uint64(1) << np.uint64(i & 63))
    return largest


@compiled
def gather(keys: Any, flags: Any, found: Any) -> Any:
    """Copy the flagged keys to `found`, a little longer than `keys`; return how many.

    Flags are rare: three of a word of 64 are looked for whether they are there or not, which
    saves guesses at branches.
    """
    size, last = np.uint64(0), np.uint64(keys.size - 1)
    for word in range(-(-keys.size // 64)):
        bits, first, end = flags[word], np.uint64(64 * word), size + ones(flags[word])
        for _ in range(3):
            place = min(first + (lowest(bits) & np.uint64(63)), last)
            found[size] = keys[place]
            size += np.uint64(1)
            bits &= bits - np.uint64(1)
        while bits:
            found[size] = keys[first + lowest(bits)]
            size += np.uint64(1)
            bits &= bits - np.uint64(1)
        size = end
    return np.int64(size)


@compiled
def sort_in(key: Any, j: Any, low: Any, high: Any, inside: Any, used: Any, counts: Any) -> None:
    """Keep or count a key that may lie in interval j; see `sift`."""
    first, last = low[j], high[j]
    if first < key and key < last:  # most do
        inside[j, np.uint64(used[j])] = key
        used[j] += 1
    else:
        where = np.uint64(key >= first) + np.uint64(key > first)
        counts[j, where + np.uint64(key >= last) + np.uint64(key > last)] += 1


@compiled
def sift(
    found: Any, size: int, marked: Any, low: Any, high: Any, inside: Any, used: Any, counts: Any
) -> None:
    """Place keys relative to the intervals that touch their buckets.

    A bucket's mark is 1 + j where interval j alone touches it, and `SHARED` where several do.
    `inside[j, used[j]:]` receives the keys strictly between `low[j]` and `high[j]`; `counts[j]`
    how many lie below both, at `low[j]`, at both, at `high[j]` and above it. Those in buckets
    above that of `high[j]` are left to `place`.
    """
    for i in range(np.uint64(size)):
        key = found[i]
        mark = marked[key >> _SHIFT]
        if mark != SHARED:
            # Unsigned places are used as they are; signed ones might count from the end.
            sort_in(key, np.uint64(mark) - _ONE, low, high, inside, used, counts)
            continue
        for j in range(np.uint64(low.size)):
            if bucket(key) <= bucket(high[j]):
                sort_in(key, j, low, high, inside, used, counts)


@compiled
def tally(
    p: Any,
    s: Any,
    order: int,
    arithmetic: int,
    stream: Any,
    start: Any,
    low: Any,
    high: Any,
    marked: Any,
    active: Any,
    groups: Any,
    keys: Any,
    found: Any,
    flags: Any,
    above: Any,
    at_low: Any,
    at_high: Any,
    inside: Any,
    used: Any,
    changed: Any,
) -> Any:
    """Place one block's keys relative to every interval; return the largest change's bits.

    `above[j]` counts keys beyond `high[j]` of the `active` intervals, which `groups` lays out
    as `place` wants them; `at_low` and `at_high` those at its ends, of one that is a single key
    at its high end; `inside` and `used` are `sift`'s; `changed[0]` counts elements with a change
    above zero. Once a change is no number, nothing is counted any more.
    """
    largest = _ZERO
    alone = order == TOP and arithmetic == FLOAT32
    counts = np.zeros(active.size + 1, np.int64)
    near = np.zeros((low.size, 5), np.int64)
    for first in range(0, s.size, SUB_BLOCK):
        last = min(s.size, first + SUB_BLOCK)
        x, y, block = p[first:last], s[first:last], keys[: last - first]
        if order == RANDOM:
            largest = larger(fill_keys(x, y, TOP, arithmetic, stream, start, block), largest)
            changed[0] += count_moved(block, _ZERO)
            random_keys(stream, start + first, block)
        elif not alone or block.size % LANES:
            largest = larger(fill_keys(x, y, order, arithmetic, stream, start, block), largest)
        if largest > _INFINITE:
            return largest
        flags[:] = 0
        top = place(x, y, keys, alone, block.size, groups, flags, counts)
        if alone and top >= bucket(_INFINITE):
            for key in block:
                largest = larger(key, largest)
            if largest > _INFINITE:
                return largest
        if order == BOTTOM:
            changed[0] += count_moved(block, still_key(order))
        size = gather(block, flags, found)
        sift(found, size, marked, low, high, inside, used, near)
    if order == TOP:
        # A change that is not zero is at least 2**-149 / 1e-8, far above the first bucket.
        changed[0] += counts[0]
    for i in range(active.size):
        above[active[i]] += counts[1 + i]
    for j in range(low.size):
        at_low[j] += near[j, 1]
        at_high[j] += near[j, 2] + near[j, 3]
        above[j] += near[j, 4]
    return largest


@compiled
def histogram(keys: Any, low: int, shift: int, counts: Any) -> None:
    """Count keys from `low` on in bins of 2**shift; those beyond either end are left out."""
    for key in keys:
        place = (np.int64(key) - low) >> shift
        if 0 <= place < counts.size:
            counts[place] += 1


@compiled
def count_beyond(
    keys: Any, tensors: Any, sizes: Any, threshold: int, above: Any, tied: Any
) -> None:
    """Count for each tensor the keys above and at a threshold.

    Args:
        keys: in pieces of one tensor each.
        tensors: of each piece.
        sizes: of each piece.
        threshold: below 2**31.
        above: for each tensor, added to.
        tied: for each tensor, added to.
    """
    border, first = np.uint32(threshold), 0
    for i in range(tensors.size):
        beyond = equal = 0
        for key in keys[first : first + sizes[i]]:
            beyond += key > border
            equal += key == border
        above[tensors[i]] += beyond
        tied[tensors[i]] += equal
        first += sizes[i]
