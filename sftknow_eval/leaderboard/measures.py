"""A row's numbers with their intervals, in closed form, and differences between rows.

The same estimates as `evaluation.statistics.seeds.over_seeds` gives: there statsmodels fits a
regression for every number, here the regression on group indicators is written out, as a board has
tens of thousands of them. A test holds both equal.

Suffixes: S seeds, F facts, G clusters, P facts of a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sftknow_eval.evaluation.statistics.clustered import few_clusters
from sftknow_eval.evaluation.statistics.intervals import enough
from sftknow_eval.evaluation.statistics.quantiles import t_quantile
from sftknow_eval.evaluation.statistics.tiers import Side, differences
from sftknow_eval.leaderboard.rows import Measure
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

OVER_BOTH = "over seeds and facts"
OVER_FACTS = "over facts"
OVER_SEEDS = "over seeds"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Facts over which a plain mean is taken: a stratum, or what the base knows.

    Attributes:
        facts: their positions; int.
        cluster: subject of each, numbered without gaps; int.
        n_clusters: how many there are.
    """

    facts: np.ndarray
    cluster: np.ndarray
    n_clusters: int

    @classmethod
    def of(cls, facts: np.ndarray, subject_F: np.ndarray) -> Part:
        """Return the part of some facts."""
        codes = np.unique(subject_F[facts], return_inverse=True)[1]
        return cls(facts, codes, int(codes.max()) + 1 if len(codes) else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """The plain mean of parts, and the subjects over all of them.

    Attributes:
        parts: without empty ones.
        weight_F: of each fact in the mean; 0 for facts of no part.
        cluster_F: subject of each fact of any part; -1 for others.
    """

    parts: tuple[Part, ...]
    weight_F: np.ndarray
    cluster_F: np.ndarray
    n_clusters: int
    n_facts: int

    @classmethod
    def of(cls, groups: Sequence[np.ndarray], subject_F: np.ndarray) -> Mean:
        """Return the mean over groups, bool (F) each, of which empty ones are left out."""
        held = [group for group in groups if group.any()]
        weight_F = np.zeros(len(subject_F))
        cluster_F = np.full(len(subject_F), -1)
        for group in held:
            weight_F[group] = 1 / (group.sum() * len(held))
        inside = weight_F > 0
        codes = np.unique(subject_F[inside], return_inverse=True)[1]
        cluster_F[inside] = codes
        parts = tuple(Part.of(np.flatnonzero(group), subject_F) for group in held)
        n_clusters = int(codes.max()) + 1 if len(codes) else 0
        return cls(parts, weight_F, cluster_F, n_clusters, int(inside.sum()))

    def error(self, values_F: np.ndarray) -> float | None:
        """Return the standard error of the mean, by subject; None for one subject."""
        return float(np.linalg.norm(self._errors(values_F))) if self.n_clusters > 1 else None

    def side(self, values_SF: np.ndarray) -> Side:
        """Return a row in differences of this mean from others."""
        return Side.weighted(values_SF, self.weight_F, self._errors(values_SF.mean(axis=0)))

    def _errors(self, values_F: np.ndarray) -> np.ndarray:
        """Return what each subject adds to the mean's error, as `clustered.error_parts`."""
        rest_F = np.zeros(len(values_F))
        for part in self.parts:
            rest_F[part.facts] = values_F[part.facts] - values_F[part.facts].mean()
        inside = self.cluster_F >= 0
        sums_G: np.ndarray = np.bincount(
            self.cluster_F[inside], (rest_F * self.weight_F)[inside], self.n_clusters
        )
        sums_G *= few_clusters(self.n_clusters, self.n_facts, len(self.parts)) ** 0.5
        return sums_G


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The means that a row shows, for one base and one choice of facts asked.

    Attributes:
        means: by column: `id`, `ood`, `lost`, `gained`, `id_0`, ...
    """

    means: Mapping[str, Mean]

    @classmethod
    def of(cls, code_F: np.ndarray, subject_F: np.ndarray, knows_F: np.ndarray | None) -> Panel:
        """Return the panel of facts with the given strata, subjects and base's verdicts.

        Args:
            code_F: 5 x (0 for ID, 1 for OOD) + stratum.
            subject_F: a number for each subject.
            knows_F: whether the base knows the fact; None where that is not asked.
        """
        groups = {
            f"{domain}_{s}": code_F == place * N_STRATA + s
            for place, domain in enumerate(DOMAINS)
            for s in range(N_STRATA)
        }
        wanted: dict[str, list[np.ndarray]] = {name: [group] for name, group in groups.items()}
        for domain in DOMAINS:
            wanted[domain] = [groups[f"{domain}_{s}"] for s in range(N_STRATA)]
        if knows_F is not None:
            wanted |= {"lost": [knows_F], "gained": [~knows_F]}
        return cls({name: Mean.of(parts, subject_F) for name, parts in wanted.items()})

    def measures(self, values_SF: np.ndarray) -> dict[str, Measure]:
        """Return every mean of the verdicts, or shares, of each seed on each fact."""
        values_SF = values_SF.astype(np.float64)
        found = {}
        for name, mean in self.means.items():
            found[name] = over_seeds(1 - values_SF if name == "lost" else values_SF, mean)
        return found


def over_seeds(values_SF: np.ndarray, mean: Mean) -> Measure:
    """Return a mean over seeds with its interval over seeds and facts.

    Source: as `evaluation.statistics.seeds.over_seeds`.
    """
    if not mean.parts:
        return Measure(None)
    scores_S = values_SF @ mean.weight_F
    value = float(scores_S.mean())
    sd = float(scores_S.std(ddof=1)) if len(scores_S) > 1 else None
    limits = _over_facts(values_SF.mean(axis=0), mean)
    low = high = value
    if limits:
        margin = _seeds_margin(sd, len(scores_S))
        low = max(value - math.hypot(margin, value - limits[0]), 0.0)
        high = min(value + math.hypot(margin, limits[1] - value), 1.0)
    method = OVER_BOTH if sd is not None else OVER_FACTS
    return Measure(value, low, high, tuple(map(float, scores_S)), sd, method)


def _over_facts(values_F: np.ndarray, mean: Mean) -> tuple[float, float] | None:
    """Return the interval for the choice of facts: Wilson's where a part is small, else normal."""
    parts = [_part_limits(values_F[part.facts], part) for part in mean.parts]
    if all(part.wilson is None for part in parts):
        error = mean.error(values_F)
        value = float(values_F @ mean.weight_F)
        return None if error is None else (value - _Z * error, value + _Z * error)
    held = [(part.value, *(part.wilson or part.normal or (0.0, 1.0))) for part in parts]
    if any(part.wilson is None and part.normal is None for part in parts):
        return None
    below = math.sqrt(math.fsum((v - low) ** 2 for v, low, _ in held)) / len(held)
    above = math.sqrt(math.fsum((high - v) ** 2 for v, _, high in held)) / len(held)
    value = math.fsum(v for v, _, _ in held) / len(held)
    return value - below, value + above


@dataclass(frozen=True, slots=True)
class _Limits:
    value: float
    wilson: tuple[float, float] | None
    normal: tuple[float, float] | None = None


def _part_limits(values_P: np.ndarray, part: Part) -> _Limits:
    n, total = len(values_P), float(values_P.sum())
    value = total / n
    if not enough(n, int(min(total, n - total))):
        return _Limits(value, wilson(total, n))
    if part.n_clusters < 2:
        return _Limits(value, None)
    sums_G = np.bincount(part.cluster, values_P - value, part.n_clusters) / n
    correction = part.n_clusters / (part.n_clusters - 1)
    margin = _Z * math.sqrt(float(sums_G @ sums_G) * correction)
    return _Limits(value, None, (value - margin, value + margin))


def wilson(total: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share; `total` may be a mean over seeds."""
    share, z2 = total / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def of_numbers(values: Sequence[float | None]) -> Measure:
    """Return the mean of a number over seeds, with Student's t over seeds."""
    held = [value for value in values if value is not None]
    if not held:
        return Measure(None, seeds=tuple(values))
    mean = math.fsum(held) / len(held)
    if len(held) < 2:
        return Measure(mean, seeds=tuple(values))
    sd = float(np.std(held, ddof=1))
    margin = _seeds_margin(sd, len(held))
    return Measure(mean, max(mean - margin, 0.0), mean + margin, tuple(values), sd, OVER_SEEDS)


def difference(one_SF: np.ndarray, other_SF: np.ndarray, mean: Mean) -> Measure:
    """Return how far a row differs from another in a mean of the same facts."""
    difference = differences(mean.side(one_SF), [mean.side(other_SF)])[0]
    return Measure(difference.value, difference.low, difference.high, method="paired, by subject")


def _seeds_margin(sd: float | None, n_seeds: int) -> float:
    return 0.0 if sd is None else t_quantile(n_seeds - 1) * sd / math.sqrt(n_seeds)


_Z = 1.959963984540054  # two-sided 95% of the normal law
