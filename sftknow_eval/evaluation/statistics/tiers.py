"""Strategies side by side, each with several seeds: told apart or not, and ranked in tiers.

Suffixes: S seeds of one strategy, T of the other, F facts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE, Outcome
from sftknow_eval.evaluation.statistics.clustered import clustered_error
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
    from scipy.stats import t

    held = [group for group in groups if group.any()]
    between_F = one_SF.mean(axis=0) - other_TF.mean(axis=0)
    value, facts_error = clustered_error(between_F, held, cluster_F)
    n_clusters = len(np.unique(cluster_F))
    parts = [((facts_error or 0.0) ** 2, n_clusters - 1)]
    several = min(len(one_SF), len(other_TF)) > 1
    if several:
        for values_SF in (one_SF, other_TF):
            scores_S = np.mean([values_SF[:, group].mean(axis=1) for group in held], axis=0)
            parts.append((float(scores_S.var(ddof=1)) / len(scores_S), len(scores_S) - 1))
    variance = math.fsum(part for part, _ in parts)
    if variance == 0 or facts_error is None:
        return Difference(value, None, None, None, several)
    freedom = variance**2 / math.fsum(part**2 / df for part, df in parts)
    margin = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    p = 2 * float(t.sf(abs(value) / math.sqrt(variance), freedom))
    return Difference(value, value - margin, value + margin, p, several)


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
    names: Sequence[str], difference: Callable[[str, str], Difference]
) -> list[tuple[str, ...]]:
    """Return the names in tiers: within one, none is told apart from the first.

    The first name opens a tier. It is tested against all names below it, as one family (Holm). The
    tier ends before the first name that is told apart; that name opens the next. So a name may
    stand in a lower tier although it is not told apart from a tier's first itself, because one
    above it is.

    Args:
        names: best first.
        difference: of the first name from the second.
    """
    left, found = list(names), []
    while left:
        first, below = left[0], left[1:]
        adjusted = holm([difference(first, name).p for name in below])
        apart = [i for i, p in enumerate(adjusted) if p is not None and p < 1 - CONFIDENCE]
        end = apart[0] + 1 if apart else len(left)
        found.append(tuple(left[:end]))
        left = left[end:]
    return found
