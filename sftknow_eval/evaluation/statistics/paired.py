"""One run against another on the same facts of one domain: by stratum, pooled, and on average.

The other is the base, plain fine-tuning, or a fine-tune that learned the prompt's form only. Lost
is what the other knows and the run answers wrongly, gained the reverse (protocol, "Kept, lost,
gained").

Suffixes: F facts, S strata, C columns, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sftknow_eval.evaluation.compare import Transitions
from sftknow_eval.evaluation.results import Share
from sftknow_eval.evaluation.statistics.intervals import (
    Estimate,
    bootstrap_estimate,
    enough,
    mean_estimate,
    paired_estimate,
    share_estimate,
)
from sftknow_eval.evaluation.statistics.panel import UNITS, Panel, Unit
from sftknow_eval.evaluation.statistics.resampling import bootstrap_sums, flipped_sums
from sftknow_eval.evaluation.statistics.significance import flip_p, least_detectable, mcnemar_p
from sftknow_eval.mastery.table import N_STRATA


@dataclass(frozen=True, slots=True)
class Cell:
    """What one run changed in a group of facts: a stratum, all facts, or the mean of the strata.

    Attributes:
        counts: kept, lost, gained and unknown facts; of the mean, sums over the strata.
        accuracy: of the run, and `other` of what it is compared with.
        difference: accuracy of the run minus that of the other, with the interval to report.
        by: the same difference with the cluster bootstrap by subject and by relation.
        lost_of_known, gained_of_unknown: shares, of what the other knew and did not; None for
            the mean.
        test: `mcnemar` for counts, `sign flips by subject` for the mean.
        p: of the test; `p_holm` adjusted within the family (None until then).
        least_detectable: difference that the test would find four times in five.
    """

    counts: Transitions
    accuracy: Estimate
    other: Estimate
    difference: Estimate
    by: dict[Unit, Estimate]
    lost_of_known: Estimate | None
    gained_of_unknown: Estimate | None
    test: str
    p: float | None
    least_detectable: float | None
    p_holm: float | None = None

    def adjusted(self, p_holm: float | None) -> Cell:
        """Return the cell with its p-value adjusted."""
        return replace(self, p_holm=p_holm)

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        counts = {name: getattr(self.counts, name) for name in ("kept", "lost", "gained")}
        shares = {
            "lost_of_known": self.lost_of_known,
            "gained_of_unknown": self.gained_of_unknown,
        }
        return {
            "n": self.counts.n,
            **counts,
            "unknown": self.counts.unknown,
            "accuracy": self.accuracy.as_json(),
            "other": self.other.as_json(),
            "difference": self.difference.as_json(),
            **{f"by_{unit}": found.as_json() for unit, found in self.by.items()},
            **{name: found.as_json() if found else None for name, found in shares.items()},
            "test": self.test,
            "p": self.p,
            "p_holm": self.p_holm,
            "least_detectable": self.least_detectable,
        }


@dataclass(frozen=True, slots=True)
class PairedDomain:
    """One run against another in one domain.

    Attributes:
        strata: by stratum; a stratum without facts has counts of 0 and no values.
        pooled: all facts together, each counting once.
        mean: the plain mean of the strata that hold facts, each stratum counting once.
    """

    strata: tuple[Cell, ...]
    pooled: Cell
    mean: Cell

    def as_json(self) -> dict[str, Any]:
        """Return all cells."""
        strata = [cell.as_json() for cell in self.strata]
        return {"strata": strata, "all": self.pooled.as_json(), "mean": self.mean.as_json()}


# Columns of the table that is resampled, for each stratum; `known` is what the other got right.
_N, _RIGHT, _KNOWN, _LOST = range(4)


def paired_domain(
    panel: Panel, run_F: np.ndarray, other_F: np.ndarray, draws: int, rng: np.random.Generator
) -> PairedDomain:
    """Compare two runs on the facts of one domain.

    Args:
        panel: the facts, of one domain.
        run_F: whether the run's answer is right.
        other_F: whether the other's is.
        draws: of the bootstrap and of the sign flips.
        rng: their source of random numbers.
    """
    counts = [_counts(run_F, other_F, panel.stratum_F == s) for s in range(N_STRATA)]
    table_FC = _table(panel.stratum_F, run_F, other_F)
    sums = {
        unit: bootstrap_sums(table_FC, panel.cluster_F[unit], draws, rng).reshape(
            draws, N_STRATA, 4
        )
        for unit in UNITS
    }
    clusters = {unit: panel.n_clusters(unit) for unit in UNITS}
    strata = tuple(
        _cell(found, {unit: sums[unit][:, s] for unit in UNITS}, clusters)
        for s, found in enumerate(counts)
    )
    everything = _counts(run_F, other_F, np.ones(len(panel), bool))
    pooled = _cell(everything, {unit: sums[unit].sum(axis=1) for unit in UNITS}, clusters)
    mean = _mean(panel, strata, sums, clusters, everything)
    p = mean_p(panel, run_F.astype(np.int64) - other_F, draws, rng)
    return PairedDomain(strata, pooled, replace(mean, p=p))


def mean_p(
    panel: Panel, difference_F: np.ndarray, draws: int, rng: np.random.Generator
) -> float | None:
    """Return the p-value of the mean of the strata's differences, by sign flips of subjects."""
    sizes = np.bincount(panel.stratum_F, minlength=N_STRATA)
    held = sizes > 0
    weights = np.where(held, 1 / np.maximum(sizes, 1), 0) / held.sum()
    table_FC = np.equal.outer(panel.stratum_F, np.arange(N_STRATA)) * difference_F[:, None]
    flipped = flipped_sums(table_FC, panel.cluster_F["subject"], draws, rng) @ weights
    return flip_p(float(table_FC.sum(axis=0) @ weights), flipped)


def _counts(run_F: np.ndarray, other_F: np.ndarray, inside_F: np.ndarray) -> Transitions:
    run, other = run_F[inside_F], other_F[inside_F]
    return Transitions(
        kept=int((run & other).sum()),
        lost=int((~run & other).sum()),
        gained=int((run & ~other).sum()),
        unknown=int((~run & ~other).sum()),
    )


def _table(stratum_F: np.ndarray, run_F: np.ndarray, other_F: np.ndarray) -> np.ndarray:
    columns = np.stack([np.ones_like(run_F), run_F, other_F, other_F & ~run_F], axis=1)
    inside = np.equal.outer(stratum_F, np.arange(N_STRATA))
    table: np.ndarray = (inside[:, :, None] & columns[:, None, :]).reshape(len(run_F), -1)
    return table.astype(np.int32)


def _cell(counts: Transitions, sums: dict[Unit, np.ndarray], clusters: dict[Unit, int]) -> Cell:
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = {unit: _ratios(found) for unit, found in sums.items()}
    changed, n = counts.lost + counts.gained, counts.n
    value = (counts.gained - counts.lost) / n if n else None
    by: dict[Unit, Estimate] = {
        unit: bootstrap_estimate(value, found["difference"], clusters[unit])
        for unit, found in draws.items()
    }
    subject, size = draws["subject"], clusters["subject"]
    scored = paired_estimate(counts.kept, counts.lost, counts.gained, counts.unknown)
    difference = by["subject"] if enough(n, changed) else scored
    known, unknown = counts.lost_of_known, counts.gained_of_unknown
    return Cell(
        counts,
        share_estimate(Share(counts.kept + counts.gained, n), subject["right"], size),
        share_estimate(Share(known.n, n), subject["known"], size),
        difference,
        by,
        share_estimate(known, subject["lost"], size),
        share_estimate(unknown, subject["gained"], size),
        "mcnemar",
        mcnemar_p(counts.lost, counts.gained),
        least_detectable(n, changed, by["subject"].standard_error),
    )


def _ratios(sums_DC: np.ndarray) -> dict[str, np.ndarray]:
    n, right, known, lost = (sums_DC[:, column] for column in (_N, _RIGHT, _KNOWN, _LOST))
    return {
        "right": right / n,
        "known": known / n,
        "difference": (right - known) / n,
        "lost": lost / known,
        "gained": (right - known + lost) / (n - known),
    }


def _mean_ratios(sums_DSC: np.ndarray, held: list[int]) -> dict[str, np.ndarray]:
    """Return (D) the means over the strata that hold facts, by name of the ratio."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [_ratios(sums_DSC[:, s]) for s in held]
    return {
        name: np.mean([ratios[name] for ratios in found], axis=0)
        for name in ("right", "known", "difference")
    }


def _mean(
    panel: Panel,
    strata: tuple[Cell, ...],
    sums: dict[Unit, np.ndarray],
    clusters: dict[Unit, int],
    everything: Transitions,
) -> Cell:
    """Return the mean of the strata: by the bootstrap where it serves all, else by Zou-Donner."""
    cells = [cell for cell in strata if cell.counts.n]
    held = [s for s, cell in enumerate(strata) if cell.counts.n]
    means = {unit: _mean_ratios(found, held) for unit, found in sums.items()}
    difference = mean_estimate([cell.difference for cell in cells])
    by: dict[Unit, Estimate] = {
        unit: bootstrap_estimate(difference.value, found["difference"], clusters[unit])
        for unit, found in means.items()
    }

    def mean(parts: list[Estimate], name: str) -> Estimate:
        scored = mean_estimate(parts)
        if all(part.method == "cluster bootstrap" for part in parts):
            return bootstrap_estimate(scored.value, means["subject"][name], clusters["subject"])
        return scored

    best = mean([cell.difference for cell in cells], "difference")
    return Cell(
        everything,
        mean([cell.accuracy for cell in cells], "right"),
        mean([cell.other for cell in cells], "known"),
        best,
        by,
        None,
        None,
        "sign flips by subject",
        None,
        least_detectable(len(panel), 0, best.standard_error),
    )
