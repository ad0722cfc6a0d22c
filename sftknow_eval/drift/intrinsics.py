"""Operations on single numbers as LLVM has them, for the kernels.

numba widens every integer to 64 bits, which halves or quarters the number of elements a
vector instruction handles; these keep their width. bfloat16 values are held as uint16.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

BUCKET_SHIFT = 16  # a bucket is the keys that share their upper bits


@intrinsic
def as_float(typingctx: Any, value: Any) -> Any:
    """Widen a bfloat16 (uint16) to float32; leave a float32 as it is. Both are exact."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.args[0] == types.float32:
            return args[0]
        word = context.get_value_type(types.uint32)
        bits = builder.shl(builder.zext(args[0], word), word(16))
        return builder.bitcast(bits, context.get_value_type(types.float32))

    return types.float32(value), build


@intrinsic
def as_bits(typingctx: Any, value: Any) -> Any:
    """Return the bits of a float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), build


@intrinsic
def rounded(typingctx: Any, value: Any) -> Any:
    """Round a float32 to the nearest bfloat16, ties to even, and keep it as float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = context.get_value_type(types.uint32)
        bits = builder.bitcast(args[0], word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        bits = builder.add(bits, builder.add(odd, word(0x7FFF)))
        bits = builder.and_(bits, word(0xFFFF0000))
        return builder.bitcast(bits, context.get_value_type(types.float32))

    return types.float32(types.float32), build


@intrinsic
def larger(typingctx: Any, one: Any, other: Any) -> Any:
    """Return the larger of two unsigned numbers."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return types.uint32(types.uint32, types.uint32), build


@intrinsic
def less(typingctx: Any, one: Any, other: Any) -> Any:
    """Subtract the second number from the first."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sub(*args)

    return types.uint32(types.uint32, types.uint32), build


@intrinsic
def one_other(typingctx: Any, count: Any, key: Any, still: Any) -> Any:
    """Add one where the key, below 2**31, differs."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, key, still = args
        other = builder.ashr(builder.neg(builder.xor(key, still)), key.type(31))
        return builder.sub(count, other)

    return types.uint32(types.uint32, types.uint32, types.uint32), build


@intrinsic
def bucket(typingctx: Any, key: Any) -> Any:
    """Return a key's bucket."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        short = context.get_value_type(types.uint16)
        return builder.trunc(builder.lshr(args[0], args[0].type(BUCKET_SHIFT)), short)

    return types.uint16(types.uint32), build


@intrinsic
def pick(typingctx: Any, key: Any, border: Any, base: Any, finetuned: Any) -> Any:
    """Return the base's bits where the key is above the border, else the fine-tune's.

    Keys are below 2**31, so that the comparison of signed numbers does, which all vector units
    have. A border of -1 lets every key pass.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        key, border, base, finetuned = args
        return builder.select(builder.icmp_signed(">", key, border), base, finetuned)

    return base(types.uint32, types.int32, base, base), build
