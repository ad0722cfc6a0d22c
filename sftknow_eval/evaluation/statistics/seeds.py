"""Several runs of one strategy: its mean, and how far seeds spread beyond chance.

Two things make a strategy's number uncertain: another seed (draw of facts, order, initial values)
would have trained another model, and other test facts would have been asked. They are kept apart
and both go into the interval.

Suffixes: S seeds, F facts, G clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome
from sftknow_eval.evaluation.statistics.clustered import clustered_mean
from sftknow_eval.evaluation.statistics.panel import Panel
from sftknow_eval.evaluation.statistics.quantiles import t_quantile
from sftknow_eval.evaluation.statistics.resampling import cluster_sums
from sftknow_eval.mastery.facts import Domain
from sftknow_eval.mastery.table import N_STRATA


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A score of one strategy, over its seeds.

    Attributes:
        values: the score of each seed, in the order given.
        mean: of the values; None where nothing could be scored.
        low, high: 95% interval of the mean, over seeds and facts; of one seed, over facts only.
        between_seeds: standard deviation of the values as seen; None for one seed.
        by_chance: the standard deviation that they would have if all seeds were alike and only
            single answers came out by chance one way or the other.
        of_seeds: what is left, the spread between seeds apart from chance, at least 0.
        facts_error: standard error of the mean for the choice of test facts.
    """

    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    between_seeds: float | None
    by_chance: float | None
    of_seeds: float | None
    facts_error: float | None

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        names = [name for name in self.__slots__ if name != "values"]
        return {"values": list(self.values), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class SeedDomain:
    """The scores of a strategy in one domain.

    Attributes:
        strata: accuracy by stratum.
        mean: the plain mean of the strata that hold facts.
        lost_of_known, gained_of_unknown: shares against the base; None without a base.
    """

    strata: tuple[OverSeeds, ...]
    mean: OverSeeds
    lost_of_known: OverSeeds | None
    gained_of_unknown: OverSeeds | None

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        shares = {
            "lost_of_known": self.lost_of_known,
            "gained_of_unknown": self.gained_of_unknown,
        }
        return {
            "strata": [entry.as_json() for entry in self.strata],
            "mean": self.mean.as_json(),
            **{name: found.as_json() if found else None for name, found in shares.items()},
        }


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """The scores of a strategy over its seeds, by domain."""

    seeds: int
    domains: dict[Domain, SeedDomain]

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        domains = {name: found.as_json() for name, found in self.domains.items()}
        return {"seeds": self.seeds, "domains": domains}


def seed_summary(
    runs: Sequence[Sequence[Outcome]],
    clusters: Mapping[str, str] | None = None,
    base: Sequence[Outcome] | None = None,
) -> SeedSummary:
    """Return a strategy's scores over its seeds.

    Args:
        runs: outcomes of each seed, on the same facts and strata.
        clusters: subject by fact id; None where the outcomes carry it.
        base: the base's outcomes, for what was lost and gained.

    Raises:
        SettingsError: no runs, or runs of other facts.
    """
    if not runs:
        raise SettingsError("There are no runs to summarise over seeds.")
    panel = Panel.of(runs[0], clusters)
    right_SF = np.stack([panel.verdicts(run, f"seed {i}") for i, run in enumerate(runs)])
    known_F = panel.verdicts(base, "base") if base is not None else None
    domains = {}
    for domain, facts, inside in panel.domains():
        known = known_F[inside] if known_F is not None else None
        domains[domain] = _domain(facts, right_SF[:, inside], known)
    return SeedSummary(len(runs), domains)


def _domain(panel: Panel, right_SF: np.ndarray, known_F: np.ndarray | None) -> SeedDomain:
    subjects_F = panel.cluster_F["subject"]
    groups = strata_groups(panel)
    lost = gained = None
    if known_F is not None:
        lost = over_seeds(~right_SF, [known_F], subjects_F)
        gained = over_seeds(right_SF, [~known_F], subjects_F)
    return SeedDomain(
        tuple(over_seeds(right_SF, [group], subjects_F) for group in groups),
        over_seeds(right_SF, groups, subjects_F),
        lost,
        gained,
    )


def strata_groups(panel: Panel) -> list[np.ndarray]:
    """Return bool (F) for each stratum: which facts are in it."""
    return [panel.stratum_F == stratum for stratum in range(N_STRATA)]


def over_seeds(
    values_SF: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray
) -> OverSeeds:
    """Return the plain mean over groups of facts, over seeds.

    Args:
        values_SF: what each seed made of each fact.
        groups: bool (F) each; one group for a stratum, five for the mean of the strata. Groups
            without facts are left out.
        cluster_F: subject of each fact.

    The interval adds up two independent margins as squares: Student's t over seeds, and that for
    the choice of facts. With one seed only the second is known.
    """
    held = [group for group in groups if group.any()]
    if not held:
        return OverSeeds((), *([None] * 7))
    weight_F = sum((group / group.sum() for group in held), np.zeros(len(cluster_F))) / len(held)
    scores_S = values_SF @ weight_F
    spread = _spread(values_SF, weight_F, cluster_F, scores_S)
    over_facts = clustered_mean(values_SF.mean(axis=0), held, cluster_F)
    margin = seeds_margin(spread[0], len(scores_S))
    mean = float(scores_S.mean())
    low, high = mean, mean
    if over_facts.low is not None and over_facts.high is not None:
        low = max(mean - math.hypot(margin, mean - over_facts.low), 0.0)
        high = min(mean + math.hypot(margin, over_facts.high - mean), 1.0)
    values = tuple(map(float, scores_S))
    return OverSeeds(values, mean, low, high, *spread, over_facts.standard_error)


def seeds_margin(between: float | None, n_seeds: int) -> float:
    """Return the half width of the 95% interval over seeds, 0 where there is one seed only."""
    if between is None:
        return 0.0
    return t_quantile(n_seeds - 1) * between / math.sqrt(n_seeds)


def _spread(
    values_SF: np.ndarray, weight_F: np.ndarray, cluster_F: np.ndarray, scores_S: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """Return the standard deviation between seeds: as seen, by chance, and what is left.

    All seeds are asked the same facts, so that hard facts are hard for all of them and do not make
    seeds differ. By chance is what remains of each answer when the mean of its fact and of its
    seed is taken away, added up over clusters. What is left of the variance is that between seeds
    in a random-effects model, which for equal errors is this difference whatever the estimator.

    Source: DerSimonian and Laird, Controlled Clinical Trials 7 (1986), 177.
    """
    n_seeds = len(scores_S)
    if n_seeds < 2:
        return None, None, None
    rest_SF = values_SF - values_SF.mean(axis=0)
    rest_SF = (rest_SF - _at_facts(rest_SF @ weight_F, weight_F)) * weight_F
    rest_GS = cluster_sums(rest_SF.T, cluster_F)
    n_clusters = len(rest_GS)
    chance = float((rest_GS**2).sum()) / (n_seeds - 1) * n_clusters / max(n_clusters - 1, 1)
    between = float(scores_S.std(ddof=1))
    return between, math.sqrt(chance), math.sqrt(max(between**2 - chance, 0.0))


def _at_facts(offset_S: np.ndarray, weight_F: np.ndarray) -> np.ndarray:
    """Return (S, F): each seed's offset at the facts that count."""
    return np.outer(offset_S, weight_F > 0)
