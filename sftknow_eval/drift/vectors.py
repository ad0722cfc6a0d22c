"""The inner loop of a scan, for 16 elements at a time, as LLVM vectors.

Written out because a compiler that is left alone handles as few elements at a time as the widest
type in a loop allows, so that 16-bit buckets would go at the pace of 32-bit keys; and because the
division, which takes longest, hides behind the counting only where both are in one loop. LLVM
translates the vectors for any processor, and the results are the same on all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sftknow_eval.drift.intrinsics import BUCKET_SHIFT

LANES = 16
GROUP = 8  # intervals that one run of the loop handles: their counts stay in registers

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_HALF, _WORD, _FLOAT = (ir.VectorType(kind, LANES) for kind in (_I16, _I32, ir.FloatType()))

# Vector units with mask registers compare on one port only: there a sign is faster.
_MASKS = bool(get_host_cpu_features().get("avx512bw"))


def _all(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * LANES)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call one of LLVM's own operations on vectors."""
    kind = args[0].type
    suffix = "f32" if kind == _FLOAT else f"i{kind.element.width}"
    signature = ir.FunctionType(result, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{LANES}{suffix}"
    )
    return builder.call(function, args)


def _repeated(builder: Any, value: Any) -> Any:
    """Return a vector of one and the same 16-bit number."""
    alone = builder.insert_element(ir.Constant(_HALF, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(alone, alone, _all(_WORD, 0))


def _place(builder: Any, data: Any, index: Any, kind: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _floats(builder: Any, data: Any, index: Any, element: Any) -> Any:
    """Load 16 values, bfloat16 (uint16) or float32, as float32."""
    if element == types.float32:
        return builder.load(_place(builder, data, index, _FLOAT), align=4)
    held = builder.load(_place(builder, data, index, _HALF), align=2)
    return builder.bitcast(builder.shl(builder.zext(held, _WORD), _all(_WORD, 16)), _FLOAT)


def _relative_change(builder: Any, p: Any, s: Any) -> Any:
    """Return the bits of |s - p| / (|p| + 1e-8), as `kernels.relative_change` has them."""
    difference = _call(builder, "fabs", _FLOAT, builder.fsub(s, p))
    size = builder.fadd(_call(builder, "fabs", _FLOAT, p), _all(_FLOAT, 1e-8))
    return builder.bitcast(builder.fdiv(difference, size), _WORD)


def _above(builder: Any, bucket: Any, edge: Any) -> Any:
    """Return -1 where a bucket, a 15-bit number, is above the edge."""
    if _MASKS:
        return builder.ashr(builder.sub(edge, bucket), _all(_HALF, 15))
    return builder.sext(builder.icmp_signed(">", bucket, edge), _HALF)


def _count(
    builder: Any,
    size: Any,
    keys_at: Callable[[Any], Any],
    intervals: Sequence[tuple[Any, Any, Any]],
    flags: Any,
    counts: Any,
) -> Any:
    """Emit the loop over all keys for these intervals: buckets of high end, low end, width.

    Returns:
        The largest bucket.
    """
    edges = [_all(_HALF, 0), *(high for high, _, _ in intervals)]
    sums = [cgutils.alloca_once(builder, _HALF) for _ in edges]
    for place in sums:
        builder.store(_all(_HALF, 0), place)
    largest = cgutils.alloca_once(builder, _HALF)
    builder.store(_all(_HALF, 0), largest)
    with cgutils.for_range(builder, builder.udiv(size, _I64(LANES))) as loop:
        keys = keys_at(builder.mul(loop.index, _I64(LANES)))
        bucket = builder.trunc(builder.lshr(keys, _all(_WORD, BUCKET_SHIFT)), _HALF)
        builder.store(_call(builder, "umax", _HALF, builder.load(largest), bucket), largest)
        for edge, place in zip(edges, sums, strict=True):
            builder.store(builder.sub(builder.load(place), _above(builder, bucket, edge)), place)
        nearest = _all(_HALF, -1)
        for _, low, width in intervals:
            beyond = _call(builder, "usub.sat", _HALF, builder.sub(bucket, low), width)
            nearest = _call(builder, "umin", _HALF, nearest, beyond)
        within = builder.icmp_unsigned("==", nearest, _all(_HALF, 0))
        flag = builder.gep(flags, [loop.index])
        builder.store(builder.or_(builder.load(flag), builder.bitcast(within, _I16)), flag)
    for j, place in enumerate(sums):
        wide = builder.zext(builder.load(place), _WORD)
        found = builder.zext(_call(builder, "vector.reduce.add", _I32, wide), _I64)
        count = builder.gep(counts, [_I64(j)])
        builder.store(builder.add(builder.load(count), found), count)
    return _call(builder, "vector.reduce.umax", _I16, builder.load(largest))


def _count_any(
    builder: Any, size: Any, keys_at: Callable[[Any], Any], lists: Any, flags: Any, counts: Any
) -> Any:
    """Emit a loop for each possible number of intervals; return the largest bucket."""
    number = lists[0].nitems
    largest = cgutils.alloca_once(builder, _I16)
    for intervals in range(GROUP + 1):
        with builder.if_then(builder.icmp_unsigned("==", number, _I64(intervals))):
            rows = [
                tuple(
                    _repeated(builder, builder.load(builder.gep(entry.data, [_I64(j)])))
                    for entry in lists
                )
                for j in range(intervals)
            ]
            builder.store(_count(builder, size, keys_at, rows, flags, counts), largest)
    return builder.load(largest)


def _opened(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    return [
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args, args, strict=True)
    ]


@intrinsic
def place_pair(
    typingctx: Any,
    p: Any,
    s: Any,
    keys: Any,
    highs: Any,
    lows: Any,
    widths: Any,
    flags: Any,
    counts: Any,
) -> Any:
    """Write the keys of a block, float32's relative change, and do what `place_keys` does."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before, after, held, *lists, flag, count = _opened(context, builder, signature, args)

        def keys_at(index: Any) -> Any:
            x, y = (
                _floats(builder, side.data, index, kind.dtype)
                for side, kind in zip((before, after), signature.args, strict=False)
            )
            found = _relative_change(builder, x, y)
            builder.store(found, _place(builder, held.data, index, _WORD), align=4)
            return found

        return _count_any(builder, held.nitems, keys_at, lists, flag.data, count.data)

    return types.uint16(p, s, keys, highs, lows, widths, flags, counts), build


@intrinsic
def place_keys(
    typingctx: Any, keys: Any, highs: Any, lows: Any, widths: Any, flags: Any, counts: Any
) -> Any:
    """Count keys above up to `GROUP` intervals and flag those within.

    Args:
        typingctx: numba's.
        keys: as many as fill whole vectors.
        highs: the bucket of each interval's high end.
        lows: the bucket of its low end; of an interval that flags nothing, 2**16 - 1.
        widths: the high end's bucket less the low end's.
        flags: a bit for each key, 16 a number; set where the key's bucket is within an interval.
        counts: to `counts[0]` is added how many keys are not in the first bucket, and to
            `counts[1 + j]` how many are in buckets above that of `highs[j]`.

    Returns:
        The largest bucket.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held, *lists, flag, count = _opened(context, builder, signature, args)

        def keys_at(index: Any) -> Any:
            return builder.load(_place(builder, held.data, index, _WORD), align=4)

        return _count_any(builder, held.nitems, keys_at, lists, flag.data, count.data)

    return types.uint16(keys, highs, lows, widths, flags, counts), build


@intrinsic
def ones(typingctx: Any, word: Any) -> Any:
    """Return how many bits of a number are set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), build


@intrinsic
def lowest(typingctx: Any, word: Any) -> Any:
    """Return the place of the lowest bit that is set; 64 if none is."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.false_bit)

    return types.uint64(types.uint64), build
