"""How much each weight moved: exact rankings of all elements from one pass over a pair.

The pass gives, for every ratio, the exact border between the elements to restore and the
others, per-tensor counts, checksums of both sides and, if asked, the statistics of the
change report. No model is built and memory does not grow with the checkpoints.

Legend: T tensors, J ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sftknow_eval.drift import kernels
from sftknow_eval.drift.kept import Kept
from sftknow_eval.drift.scan import Pair, Ranking, Scan, all_keys, sample, scan
from sftknow_eval.drift.selection import (
    LARGEST,
    Cut,
    Intervals,
    estimate,
    nothing,
    restored_elements,
    search,
    settle,
)
from sftknow_eval.drift.spread import Statistics, sum_above, value
from sftknow_eval.drift.tensors import BLOCK, BlockReader, Compared, Counts, Weights, as_float
from sftknow_eval.drift.threads import for_each


@dataclass(frozen=True)
class Change:
    """What one pass over a pair found.

    Attributes:
        tensors: the region's, sorted by name.
        ranking: order, arithmetic and seed.
        ratios: percent.
        cuts: for each ratio, which elements are restored.
        effective: for each ratio, how many restored elements had changed at all.
        changed_T: elements of each tensor with a relative change above zero.
        base_checksums: of each tensor.
        finetuned_checksums: of each tensor.
        inexact: tensors with base values that the fine-tune's type cannot hold exactly.
        whole: statistics of the region, if they were asked for.
        statistics: of each tensor, if they were asked for.
        concentration: for each ratio, the share of the sum of all relative changes that the
            restored elements hold (order `top` only). Source: Table 3.
    """

    tensors: tuple[Compared, ...]
    ranking: Ranking
    ratios: tuple[float, ...]
    cuts: tuple[Cut, ...]
    effective: tuple[int, ...]
    changed_T: Counts = field(repr=False)
    base_checksums: tuple[str, ...] = field(repr=False)
    finetuned_checksums: tuple[str, ...] = field(repr=False)
    inexact: tuple[str, ...] = ()
    whole: Statistics | None = None
    statistics: tuple[Statistics, ...] = field(default=(), repr=False)
    concentration: tuple[float | None, ...] = ()

    @property
    def elements(self) -> int:
        """Elements of the region."""
        return sum(tensor.common for tensor in self.tensors)

    @property
    def changed(self) -> int:
        """Elements of the region with a relative change above zero."""
        return int(self.changed_T.sum())


def measure(
    base: Weights,
    finetuned: Weights,
    tensors: Sequence[Compared],
    ratios: Sequence[float],
    ranking: Ranking | None = None,
    *,
    statistics: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda elements: None,
) -> Change:
    """Rank all elements of the region together and cut the ranking at every ratio.

    Args:
        base: the base's weights.
        finetuned: the fine-tune's weights.
        tensors: the region; its order does not matter.
        ratios: percent of the region's elements to restore, each from 0 to 100.
        ranking: order, arithmetic and seed; `top` in float32 if not given.
        statistics: gather what the change report needs, too (order `top` only).
        threads: how many; one per core if not given. The result does not depend on it.
        progress: called with the number of elements done, from any thread.

    Raises:
        CheckpointError: a value in the region is not finite, or a file cannot be read.

    Source: section 5 and appendix B.2; ties in canonical order (protocol, "Choices").
    """
    ranking = ranking or Ranking()
    pair = Pair(base, finetuned, tuple(sorted(tensors, key=lambda tensor: tensor.name)))
    wanted = [restored_elements(pair.elements, ratio) for ratio in ratios]
    ranks = sorted({count for count in wanted if count})
    ends = _first_ends(pair, ranking, ranks)
    none = nothing(len(pair.tensors))
    while True:
        intervals = Intervals.of(ends, ranking.still)
        with Kept(intervals.low.size) as kept:
            found = scan(
                *(pair, ranking, intervals, kept),
                statistics=statistics,
                threads=threads,
                progress=progress,
            )
            settled = [settle(found.tally, kept, intervals, rank) for rank in ranks]
            cuts = {cut.wanted: cut for cut in settled if cut is not None}
            if len(cuts) == len(ranks):
                chosen = tuple(cuts.get(count, none) for count in wanted)
                concentration = tuple(_concentration(found, kept, cut) for cut in chosen)
                break
        exact = search((all_keys(pair, ranking), all_keys(pair, ranking)), ranks)
        ends = {rank: (key, key) for rank, key in zip(ranks, exact, strict=True)}
    gathered = found.statistics
    return Change(
        *(pair.tensors, ranking, tuple(ratios), chosen),
        effective=_effective(pair, ranking, chosen, found.changed_T, threads),
        changed_T=found.changed_T,
        base_checksums=found.checksums[0],
        finetuned_checksums=found.checksums[1],
        inexact=found.inexact,
        whole=gathered.whole() if gathered else None,
        statistics=tuple(gathered.tensors[t] for t in range(len(pair.tensors))) if gathered else (),
        concentration=concentration,
    )


def _first_ends(pair: Pair, ranking: Ranking, ranks: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return for each rank between which keys its key lies, almost surely."""
    largest = LARGEST if ranking.order == "random" else kernels.INFINITE
    drawn = sample(pair, ranking) if ranks else np.zeros(0, np.uint32)
    if drawn.size:
        return estimate(drawn, pair.elements, ranks, largest)
    return dict.fromkeys(ranks, (0, largest))


def _concentration(found: Scan, kept: Kept, cut: Cut) -> float | None:
    if found.statistics is None:
        return None
    total = found.statistics.whole().total
    if not total or not cut.wanted:
        return 0.0 if total else None
    j, threshold = found.intervals.of_rank[cut.wanted], cut.threshold
    top = int(found.intervals.high[j])
    held = found.statistics.above(found.spreads, found.intervals, j)
    held += sum_above(kept.keys(j), threshold)
    at_top = int(found.tally.at_high_TJ[:, j].sum()) if top > threshold else 0
    if at_top:  # the upper end of an interval without elements may be no number
        held += at_top * value(top)
    return (held + int(cut.quota_T.sum()) * value(threshold)) / total


def _effective(
    pair: Pair,
    ranking: Ranking,
    cuts: Sequence[Cut],
    changed_T: Counts,
    threads: int | None,
) -> tuple[int, ...]:
    """Return for each cut how many of its elements have a relative change above zero."""
    changed = int(changed_T.sum())
    unchanged = pair.elements - changed
    if ranking.order == "top":
        return tuple(min(cut.wanted, changed) for cut in cuts)
    if ranking.order == "bottom":
        return tuple(max(0, cut.wanted - unchanged) for cut in cuts)

    def work(counts_J: Counts, t: int, tensor: Compared) -> None:
        reader = BlockReader(pair.base, pair.finetuned)
        left_J = [int(cut.quota_T[t]) for cut in cuts]
        for start in range(0, tensor.common, BLOCK):
            p, s = map(as_float, reader.pair(tensor, start, min(BLOCK, tensor.common - start)))
            keys, bits = np.empty(s.size, np.uint32), np.empty(s.size, np.uint32)
            ranking.fill(tensor.name, p, s, start, keys)
            Ranking("top", ranking.arithmetic).fill(tensor.name, p, s, start, bits)
            moved = bits > 0
            for j, cut in enumerate(cuts):
                tied = np.flatnonzero(keys == cut.threshold)[: left_J[j]]
                left_J[j] -= tied.size
                counts_J[j] += moved[keys > cut.threshold].sum() + moved[tied].sum()

    workers = for_each(pair.tensors, lambda: np.zeros(len(cuts), np.int64), work, threads)
    return tuple(int(count) for count in np.sum(workers, axis=0))
