"""One pass over all blocks of a pair: where every key lies, checksums, statistics."""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from sftknow_eval.drift import counting, kernels
from sftknow_eval.drift.kept import Kept
from sftknow_eval.drift.selection import Intervals, Tally, sample_size
from sftknow_eval.drift.spread import BlockSpread, SpreadOfTensors
from sftknow_eval.drift.tensors import (
    BLOCK,
    HELD_AS,
    Array,
    BlockReader,
    Compared,
    Counts,
    Digests,
    Keys,
    Weights,
    as_float,
    cast,
)
from sftknow_eval.drift.threads import for_each
from sftknow_eval.errors import CheckpointError

ORDERS = {"top": kernels.TOP, "bottom": kernels.BOTTOM, "random": kernels.RANDOM}
ARITHMETICS = {"float32": kernels.FLOAT32, "bfloat16": kernels.BFLOAT16}
_PIECE = 128


@dataclass(frozen=True)
class Ranking:
    """By what the elements are ranked.

    Attributes:
        order: `top` (most changed first), `bottom` (least changed first) or `random`.
        arithmetic: of the relative change, `float32` or `bfloat16` (the authors' code).
        seed: of the order `random`.
    """

    order: str = "top"
    arithmetic: str = "float32"
    seed: int = 0

    @property
    def codes(self) -> tuple[int, int]:
        """Order and arithmetic as the kernels know them."""
        return ORDERS[self.order], ARITHMETICS[self.arithmetic]

    @property
    def still(self) -> int:
        """The key of elements that did not change; one that no element has for `random`."""
        return int(kernels.still_key(self.codes[0]))

    def stream(self, name: str) -> np.uint64:
        """Return the start of a tensor's stream of random keys."""
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return np.uint64(int.from_bytes(digest[:8], "little"))

    def fill(self, name: str, p: Array, s: Array, start: int, keys: Keys) -> int:
        """Write the keys of a block that begins at flat index `start`; return the largest r."""
        return int(kernels.fill_keys(p, s, *self.codes, self.stream(name), start, keys))


@dataclass(frozen=True)
class Pair:
    """Two sets of weights and the tensors to compare, sorted by name."""

    base: Weights
    finetuned: Weights
    tensors: tuple[Compared, ...]

    @property
    def elements(self) -> int:
        """Elements that both sides have."""
        return sum(tensor.common for tensor in self.tensors)


def all_keys(pair: Pair, ranking: Ranking, run: int = BLOCK, step: int = 1) -> Iterator[Keys]:
    """Yield the keys of every `step`-th run of elements, all tensors laid end to end."""
    reader = BlockReader(pair.base, pair.finetuned, run)
    runs = ((tensor, i) for tensor in pair.tensors for i in range(0, tensor.common, run))
    for place, (tensor, start) in enumerate(runs):
        if place % step:
            continue
        keys = np.empty(min(run, tensor.common - start), np.uint32)
        p = s = np.empty(0, np.float32)
        if ranking.order != "random":
            p, s = map(as_float, reader.pair(tensor, start, keys.size))
        # A value that is not finite has no key; the pass over all elements names its place.
        if ranking.fill(tensor.name, p, s, start, keys) <= kernels.INFINITE:
            yield keys


def sample(pair: Pair, ranking: Ranking) -> Keys:
    """Return keys of elements drawn all over the region, in rows of neighbours.

    Elements of one row of a matrix change alike, so that many short pieces say more than a few
    long ones. Pieces are drawn evenly, each at a random place of its stretch; always the same.
    """
    step = pair.elements // sample_size(pair.elements)
    if ranking.order == "random" or step < 2:
        runs = all_keys(pair, ranking, _PIECE * 16, max(1, step))
        return np.concatenate([*runs, np.zeros(0, np.uint32)])
    draw = np.random.default_rng(0)
    found = [np.zeros((0, _PIECE), np.uint32)]
    before = 0  # pieces of the tensors before this one
    for tensor in pair.tensors:
        there = tensor.common // _PIECE
        stretches = np.arange(before // step, (before + there) // step + 1)
        pieces = stretches * step + draw.integers(step, size=stretches.size) - before
        pieces = pieces[(pieces >= 0) & (pieces < there)]
        before += there
        keys = np.empty((pieces.size, _PIECE), np.uint32)
        p, s = (as_float(side.reshape(-1)) for side in _pieces(pair, tensor, pieces * _PIECE))
        # A value that is not finite has no key; the pass over all elements names its place.
        if ranking.fill(tensor.name, p, s, 0, keys.reshape(-1)) <= kernels.INFINITE:
            found.append(keys)
    return np.concatenate(found)


def _pieces(pair: Pair, tensor: Compared, starts: Counts) -> Iterator[Array]:
    for weights, name, dtype in (
        (pair.base, tensor.base_name, tensor.base_dtype),
        (pair.finetuned, tensor.name, tensor.dtype),
    ):
        held = HELD_AS[dtype]
        out_PN = np.empty((starts.size, _PIECE * held.itemsize), np.uint8)
        weights.gather(name, starts * held.itemsize, out_PN)
        yield out_PN.view(held)


class Scanner:
    """Buffers and counts of one thread."""

    def __init__(self, pair: Pair, intervals: Intervals) -> None:
        self.reader = BlockReader(pair.base, pair.finetuned)
        self.tally = Tally.zero(len(pair.tensors), intervals.low.size)
        self.changed_T1 = np.zeros((len(pair.tensors), 1), np.int64)
        self.keys = np.empty(kernels.SUB_BLOCK, np.uint32)
        self.found = np.empty(kernels.SUB_BLOCK + 3, np.uint32)
        self.flags = np.empty(kernels.SUB_BLOCK // 64, np.uint64)
        self.tensor = 0  # of the keys in `inside`
        self.inside = _sparse_rows(intervals.low.size, 2 * BLOCK)
        self.used = np.zeros(intervals.low.size, np.int64)
        self.inexact: set[str] = set()
        self.spread = BlockSpread(intervals)

    def make_room(self, kept: Kept, tensor: int) -> None:
        """Hand over the keys inside the intervals where a block of a tensor would not fit in."""
        if tensor != self.tensor or self.used.max(initial=0) > BLOCK:
            kept.add(self.tensor, self.inside, self.used)
            self.used[:] = 0
            self.tensor = tensor


def _sparse_rows(rows: int, columns: int) -> Keys:
    """Return rows of which the beginnings will be used: no large pages, which count whole."""
    memory = mmap.mmap(-1, max(1, 4 * rows * columns), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.uint32, rows * columns).reshape(rows, columns)


@dataclass(frozen=True)
class Scan:
    """What one pass gathered."""

    intervals: Intervals
    tally: Tally
    changed_T: Counts
    checksums: tuple[tuple[str, ...], tuple[str, ...]]
    inexact: tuple[str, ...]
    statistics: SpreadOfTensors | None
    spreads: tuple[BlockSpread, ...]


def scan(
    pair: Pair,
    ranking: Ranking,
    intervals: Intervals,
    kept: Kept,
    *,
    statistics: bool,
    threads: int | None,
    progress: Callable[[int], None],
) -> Scan:
    """Read both sides once and place every key relative to the intervals.

    Args:
        pair: what to read.
        ranking: what the keys are.
        intervals: of keys.
        kept: receives the keys strictly inside them.
        statistics: gather them, too.
        threads: how many.
        progress: called with the number of elements done.

    Raises:
        CheckpointError: a value is not finite, too large for the fine-tune's type, or unreadable.
    """
    gathered = (
        SpreadOfTensors([tensor.common for tensor in pair.tensors], BLOCK) if statistics else None
    )
    streams = [ranking.stream(tensor.name) for tensor in pair.tensors]
    digests = Digests(pair.tensors)

    def work(worker: Scanner, _: int, block: int) -> None:
        t = bisect_right(digests.first, block) - 1
        start = (block - digests.first[t]) * BLOCK
        p, s = _read(worker, pair.tensors[t], start, digests.of_block[:, block])
        if p.size:
            _place(worker, pair.tensors[t], t, start, p, s)
            if gathered is not None:
                worker.spread.measure(as_float(p), as_float(s), ranking.codes[1])
                gathered.take(t, worker.spread)
        progress(p.size)

    def _place(worker: Scanner, tensor: Compared, t: int, start: int, p: Array, s: Array) -> None:
        if tensor.dtype != tensor.base_dtype:
            _check_cast(worker, tensor, start, p)
        worker.make_room(kept, t)
        tally = worker.tally
        largest = counting.tally(
            *(as_float(p), as_float(s), *ranking.codes, streams[t], start),
            *(intervals.low, intervals.high, intervals.marked),
            *(intervals.active, intervals.groups, worker.keys, worker.found, worker.flags),
            *(tally.above_TJ[t], tally.at_low_TJ[t], tally.at_high_TJ[t]),
            *(worker.inside, worker.used, worker.changed_T1[t]),
        )
        if largest >= kernels.INFINITE:
            _check_finite(tensor, start, p, s)

    blocks = range(digests.of_block.shape[1])
    workers = for_each(blocks, lambda: Scanner(pair, intervals), work, threads)
    for worker in workers:
        kept.add(worker.tensor, worker.inside, worker.used)
    return _merge(pair, ranking, intervals, workers, digests.of_tensors(), gathered)


def _read(
    worker: Scanner, tensor: Compared, start: int, digests: NDArray[np.uint64]
) -> tuple[Array, Array]:
    """Read one block of both sides, note the checksums, and return what both have."""
    sides = []
    for side, (name, dtype, size) in enumerate(
        (
            (tensor.base_name, tensor.base_dtype, tensor.base_elements),
            (tensor.name, tensor.dtype, tensor.elements),
        )
    ):
        values = worker.reader.read(side, name, dtype, start, max(0, min(BLOCK, size - start)))
        if values.size:
            digests[side] = xxhash.xxh3_64_intdigest(values.data)
        sides.append(values[: max(0, tensor.common - start)])
    return sides[0], sides[1]


def _merge(
    pair: Pair,
    ranking: Ranking,
    intervals: Intervals,
    workers: Sequence[Scanner],
    checksums: tuple[tuple[str, ...], tuple[str, ...]],
    statistics: SpreadOfTensors | None,
) -> Scan:
    tally = Tally.zero(len(pair.tensors), intervals.low.size)
    changed_T = np.zeros(len(pair.tensors), np.int64)
    for worker in workers:
        tally.add(worker.tally)
        changed_T += worker.changed_T1[:, 0]
    sizes_T = np.array([tensor.common for tensor in pair.tensors], np.int64)
    tally.add_still(intervals, ranking.still, sizes_T - changed_T, changed_T)
    return Scan(
        intervals,
        tally,
        changed_T,
        checksums,
        tuple(sorted(set().union(*(worker.inexact for worker in workers)))),
        statistics,
        tuple(worker.spread for worker in workers),
    )


def _check_cast(worker: Scanner, tensor: Compared, start: int, p: Array) -> None:
    there = cast(p, tensor.dtype)
    back = cast(there, tensor.base_dtype)
    if (back.view(f"u{back.itemsize}") == p.view(f"u{p.itemsize}")).all():
        return
    worker.inexact.add(tensor.name)
    exact = cast(p, "F32")
    overflown = np.flatnonzero(~np.isfinite(cast(there, "F32")) & np.isfinite(exact))
    if overflown.size:
        raise CheckpointError(
            f"The base's tensor '{tensor.base_name}' holds {exact[overflown[0]]:g} at flat index "
            f"{start + overflown[0]}, which is too large for the fine-tune's type {tensor.dtype}. "
            "Save the fine-tune in the base's type and try again."
        )


def _check_finite(tensor: Compared, start: int, p: Array, s: Array) -> None:
    for role, name, values in (("base", tensor.base_name, p), ("fine-tune", tensor.name, s)):
        wide = cast(values, "F32")
        wrong = np.flatnonzero(~np.isfinite(wide))
        if wrong.size:
            raise CheckpointError(
                f"The {role}'s tensor '{name}' holds {wide[wrong[0]]} at flat index "
                f"{start + wrong[0]}. Relative change needs finite values: repair the checkpoint, "
                f"or leave the tensor out with --exclude '{tensor.name}'."
            )
