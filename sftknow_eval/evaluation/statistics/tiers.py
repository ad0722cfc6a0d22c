"""Strategies side by side, each with several seeds: told apart or not, and ranked in tiers.

Suffixes: S seeds of one strategy, T of another, F facts, C clusters of them, R strategies to
compare with, V sources of variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE, Outcome
from sftknow_eval.evaluation.statistics.clustered import error_parts
from sftknow_eval.evaluation.statistics.panel import Panel
from sftknow_eval.evaluation.statistics.seeds import strata_groups
from sftknow_eval.evaluation.statistics.significance import holm
from sftknow_eval.mastery.facts import Domain


@dataclass(frozen=True, slots=True)
class Difference:
    """One strategy's mean of strata minus another's, both over their seeds, on the same facts.

    Attributes:
        value: the difference.
        low, high: its 95% interval, over facts and, where both have several seeds, over seeds.
        p: of the hypothesis that there is none; None where all answers agree.
        over_seeds: whether the spread between seeds is part of it; with a single seed on either
            side it is not, and the two may differ by their seeds alone.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    over_seeds: bool

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return asdict(self)


def difference_over_seeds(
    one_SF: np.ndarray,
    other_TF: np.ndarray,
    groups: Sequence[np.ndarray],
    cluster_F: np.ndarray,
) -> Difference:
    """Return how far two strategies differ in the plain mean over groups of the same facts.

    Facts are paired. The variances over facts and over each side's seeds add up, with Welch and
    Satterthwaite's degrees of freedom: two sides of three seeds have few, and need a clear
    difference.

    Args:
        one_SF: what each seed of the one made of each fact.
        other_TF: what each seed of the other did.
        groups: bool (F) each, such as the strata.
        cluster_F: subject of each fact.
    """
    one, other = (Side.of(values, groups, cluster_F) for values in (one_SF, other_TF))
    return differences(one, [other])[0]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One strategy in differences from others on the same facts.

    Attributes:
        value: mean of strata over its seeds.
        errors_C: what each cluster adds to its error (`clustered.error_parts`).
        seeds: how many.
        variance: of the mean over seeds; 0 for one seed.
    """

    value: float
    errors_C: np.ndarray
    seeds: int
    variance: float

    @classmethod
    def of(cls, values_SF: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray) -> Self:
        """Return the side of a strategy; the arguments are those of `difference_over_seeds`."""
        held = [group for group in groups if group.any()]
        weight_F = np.mean([group / group.sum() for group in held], axis=0)
        return cls.weighted(
            values_SF, weight_F, error_parts(values_SF.mean(axis=0), held, cluster_F)
        )

    @classmethod
    def weighted(cls, values_SF: np.ndarray, weight_F: np.ndarray, errors_C: np.ndarray) -> Self:
        """Return the side with these weights of facts."""
        n = len(values_SF)
        variance = float((values_SF @ weight_F).var(ddof=1)) / n if n > 1 else 0.0
        # The mean before the weights: the same whatever order the seeds stand in.
        return cls(float(values_SF.mean(axis=0) @ weight_F), errors_C, n, variance)


def differences(one: Side, others: Sequence[Side]) -> list[Difference]:
    """Return how far one strategy differs from each of many; see `difference_over_seeds`."""
    values_R = one.value - np.array([other.value for other in others])
    errors_R = np.linalg.norm(one.errors_C - np.stack([o.errors_C for o in others]), axis=1)
    seeds_R = np.array([other.seeds for other in others])
    several_R = (seeds_R > 1) & (one.seeds > 1)
    # Variances with their degrees of freedom: over facts, over the seeds of either side.
    spread_R = np.where(several_R, [other.variance for other in others], 0)
    variances_VR = np.stack([errors_R**2, np.where(several_R, one.variance, 0), spread_R])
    freedom_VR = np.full_like(variances_VR, len(one.errors_C) - 1.0)
    freedom_VR[1, several_R], freedom_VR[2, several_R] = one.seeds - 1, seeds_R[several_R] - 1
    margin_R, p_R = _welch(values_R, variances_VR, freedom_VR)
    found = zip(*(x.tolist() for x in (values_R, margin_R, p_R, several_R)), strict=True)
    return [
        Difference(value, None, None, None, several)
        if math.isnan(margin)
        else Difference(value, value - margin, value + margin, p, several)
        for value, margin, p, several in found
    ]


def _welch(
    values_R: np.ndarray, variances_VR: np.ndarray, freedom_VR: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (R) half widths of 95% intervals and (R) p-values; NaN where nothing varies."""
    from scipy.special import stdtr, stdtrit

    variance_R = variances_VR.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total_R = variance_R**2 / (variances_VR**2 / freedom_VR).sum(axis=0)
        p_R = 2 * stdtr(total_R, -np.abs(values_R) / np.sqrt(variance_R))
    return stdtrit(total_R, (1 + CONFIDENCE) / 2) * np.sqrt(variance_R), p_R


def compare_strategies(
    one: Sequence[Sequence[Outcome]],
    other: Sequence[Sequence[Outcome]],
    clusters: Mapping[str, str] | None = None,
) -> dict[Domain, Difference]:
    """Return, by domain, how far two strategies differ in the mean of the strata.

    Args:
        one: outcomes of each seed of the one strategy.
        other: of the other, on the same facts and strata.
        clusters: subject by fact id; None where the outcomes carry it.

    Raises:
        SettingsError: runs of other facts.
    """
    panel = Panel.of(one[0], clusters)
    one_SF = np.stack([panel.verdicts(run, "the first strategy") for run in one])
    other_TF = np.stack([panel.verdicts(run, "the second strategy") for run in other])
    return {
        domain: difference_over_seeds(
            one_SF[:, inside],
            other_TF[:, inside],
            strata_groups(facts),
            facts.cluster_F["subject"],
        )
        for domain, facts, inside in panel.domains()
    }


def tiers(
    names: Sequence[str], p_values: Callable[[str, Sequence[str]], Sequence[float | None]]
) -> list[tuple[str, ...]]:
    """Return the names in tiers: within one, none is told apart from the first.

    The first name opens a tier. It is tested against all names below it, as one family (Holm). The
    tier ends before the first name that is told apart; that name opens the next. So a name may
    stand in a lower tier although it is not told apart from a tier's first itself, because one
    above it is.

    Args:
        names: best first.
        p_values: of the differences of a name from each of the others given.
    """
    left, found = list(names), []
    while left:
        first, below = left[0], left[1:]
        adjusted = holm(p_values(first, below)) if below else []
        apart = [i for i, p in enumerate(adjusted) if p is not None and p < 1 - CONFIDENCE]
        end = apart[0] + 1 if apart else len(left)
        found.append(tuple(left[:end]))
        left = left[end:]
    return found
