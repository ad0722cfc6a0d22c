"""Compiled loops over blocks of weights: keys to rank by, counts, collection, selection.

A *key* is an unsigned 32-bit number below 2**31 per element; the elements with the largest
keys come first. For the order `top` it is the bit pattern of the float32 relative change,
which orders like the number because the change is never negative.

Nothing is compiled with fast-math, so LLVM fuses no multiply and add: a NumPy one-liner
gives the same bits. bfloat16 values are held as uint16, as NumPy has no such type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from sftknow_eval.drift.intrinsics import (
    BUCKET_SHIFT,
    as_bits,
    as_float,
    larger,
    less,
    pick,
    rounded,
)

TOP, BOTTOM, RANDOM = 0, 1, 2
FLOAT32, BFLOAT16 = 0, 1
INFINITE = 0x7F800000  # bit pattern of float32 infinity: the largest key of a finite pair
BUCKETS = 1 << 15
SUB_BLOCK = 1 << 14  # elements whose keys stay in the processor's first caches

_EPSILON = np.float32(1e-8)
# 1e-8 rounded to bfloat16: what PyTorch adds to a bfloat16 tensor on the CPU.
_EPSILON_BFLOAT16 = np.uint32(0x322C0000).view(np.float32)
_INFINITE = np.uint32(INFINITE)
_SHIFT = np.uint32(BUCKET_SHIFT)
_LOW = np.uint32((1 << BUCKET_SHIFT) - 1)
_ZERO = np.uint32(0)
_NO_KEY = np.uint32(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# pread(2), called from compiled code: a sample is tens of thousands of small reads.
_pread = types.ExternalFunction(
    "pread", types.int64(types.int32, types.intp, types.uint64, types.int64)
)
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def relative_change(p: Any, s: Any, r: Any) -> Any:
    """Write the float32 bits of |s - p| / (|p| + 1e-8) into `r`; return the largest.

    Every operation is rounded once to float32. The largest is at least `INFINITE` when any
    value of `p` or `s` is not finite.

    Source: section 5, with the 1e-8 of the authors' code.
    """
    largest = _ZERO
    for i in range(r.size):
        x = as_float(p[i])
        bits = as_bits(np.abs(as_float(s[i]) - x) / (np.abs(x) + _EPSILON))
        r[i] = bits
        largest = larger(bits, largest)
    return largest


@compiled
def relative_change_bfloat16(p: Any, s: Any, r: Any) -> Any:
    """Write the relative change as PyTorch computes it on bfloat16 tensors; return the largest.

    Values of other types are rounded to bfloat16 first, as a model loaded in bfloat16 is.

    Source: the authors' code; the denominator is rounded too, and 1e-8 is bfloat16's.
    """
    largest = _ZERO
    for i in range(r.size):
        x = rounded(as_float(p[i]))
        difference = np.abs(rounded(rounded(as_float(s[i])) - x))
        bits = as_bits(rounded(difference / rounded(np.abs(x) + _EPSILON_BFLOAT16)))
        r[i] = bits
        largest = larger(bits, largest)
    return largest


@compiled
def random_keys(stream: Any, start: Any, keys: Any) -> None:
    """Write the keys of elements `start`, `start + 1`, ... of a tensor's random stream.

    Counter-based (SplitMix64): a key depends on the stream and the flat index alone.
    """
    for i in range(keys.size):
        z = stream + (np.uint64(start) + np.uint64(i) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        keys[i] = np.uint32((z ^ (z >> np.uint64(31))) >> np.uint64(33))


@compiled
def fill_keys(
    p: Any, s: Any, order: int, arithmetic: int, stream: Any, start: Any, keys: Any
) -> Any:
    """Write the keys of one block; return the largest relative change (bits; 0 for `RANDOM`)."""
    if order == RANDOM:
        random_keys(stream, start, keys)
        return _ZERO
    if arithmetic == BFLOAT16:
        largest = relative_change_bfloat16(p, s, keys)
    else:
        largest = relative_change(p, s, keys)
    if order == BOTTOM and largest <= _INFINITE:
        for i in range(keys.size):
            keys[i] = less(_INFINITE, keys[i])
    return largest


@compiled
def still_key(order: int) -> Any:
    """Return the key of an element that did not change; one that no element has for `RANDOM`."""
    if order == TOP:
        return _ZERO
    return _INFINITE if order == BOTTOM else _NO_KEY


@compiled
def restore(keys: Any, border: Any, p: Any, s: Any, out: Any) -> None:
    """Write base values where the key is above the border and fine-tuned ones elsewhere."""
    for i in range(out.size):
        out[i] = pick(keys[i], border, p[i], s[i])


@compiled
def sweep(
    p: Any,
    s: Any,
    values: Any,
    kept: Any,
    order: int,
    arithmetic: int,
    stream: Any,
    start: Any,
    borders: Any,
    keys: Any,
    out_JN: Any,
    skip: Any,
) -> None:
    """Restore one block for every border, into the rows of `out_JN` from column `skip` on.

    `p` and `s` are for the keys; `values` and `kept` are the base's values, cast to the
    fine-tune's type, and the fine-tune's, both as integers of their bits.
    """
    size = kept.size
    for first in range(0, size, SUB_BLOCK):
        last = min(size, first + SUB_BLOCK)
        block = keys[: last - first]
        fill_keys(p[first:last], s[first:last], order, arithmetic, stream, start + first, block)
        for j in range(borders.size):
            piece = out_JN[j, skip + first : skip + last]
            restore(block, borders[j], values[first:last], kept[first:last], piece)


@compiled
def spread(
    keys: Any, marked: Any, high: Any, counts: Any, lows: Any, beyond: Any, beyond_lows: Any
) -> None:
    """Histogram of relative changes, with sums that do not depend on the order of adding.

    Within a bucket the value is a linear function of the key's low bits, so that counts and
    sums of low bits (integers) give the exact sum of changes. `beyond[j]` and
    `beyond_lows[j]` do the same for keys above `high[j]` in the very bucket of `high[j]`.
    """
    for i in range(keys.size):
        key = keys[i]
        bucket = key >> _SHIFT
        counts[bucket] += 1
        lows[bucket] += np.int64(key & _LOW)
        if key and marked[bucket]:
            for j in range(high.size):
                if key > high[j] and bucket == high[j] >> _SHIFT:
                    beyond[j] += 1
                    beyond_lows[j] += np.int64(key & _LOW)


@compiled
def norms(p: Any, s: Any, sums: Any) -> None:
    """Add the squares of s - p and of p, in float64, to `sums[0]` and `sums[1]`."""
    moved = np.zeros(8)
    size = np.zeros(8)
    for i in range(s.size):
        x = np.float64(as_float(p[i]))
        d = np.float64(as_float(s[i])) - x
        moved[i & 7] += d * d
        size[i & 7] += x * x
    sums[0] += moved.sum()
    sums[1] += size.sum()


@compiled
def read_pieces(handle: int, offsets: Any, size: int, address: int) -> int:
    """Read `size` bytes at every offset of a file, one after the other, to a memory address.

    Returns:
        The first piece that could not be read whole, or -1.
    """
    for i in range(offsets.size):
        if _pread(handle, address + i * size, size, offsets[i]) != size:
            return i
    return -1
