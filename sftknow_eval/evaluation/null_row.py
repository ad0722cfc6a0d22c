"""The null row, `base_again`: the base set against itself, which must show no difference.

A fact that stands in stratum 4 was lucky in the samples that put it there, and does worse in the
next ones although nothing happened to the model: regression to the mean. So the samples of the
mastery table are shared out. One half assigns the strata. The other half is halved again: one
quarter of the samples scores the base, one quarter scores it again. Their difference is zero but
for chance. Scored on the very samples that assigned the strata, the base differs from itself: that
difference is reported beside it, as `naive`.

Suffixes: F facts, T templates, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow_eval.errors import MasteryError
from sftknow_eval.evaluation.results import Share
from sftknow_eval.evaluation.statistics.clustered import clustered_difference
from sftknow_eval.evaluation.statistics.intervals import Estimate
from sftknow_eval.mastery.facts import DOMAINS, Domain, Fact
from sftknow_eval.mastery.table import N_STRATA, MasteryTable, stratum

# One sample of each template at least for each of: twice the strata, base, base again.
_LEAST_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class NullCell:
    """The base against itself in one stratum, or on the mean of the strata.

    Attributes:
        n: facts.
        base: share of the samples that are right, in the base's quarter.
        again: the same in the other quarter.
        difference: `again` minus `base`, with a 95% interval by subject.
        naive: what the half that did not assign the strata gives, minus what the half that
            assigned them gives: regression to the mean.
    """

    n: int
    base: float | None
    again: float | None
    difference: Estimate
    naive: Estimate

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        scores = {"n": self.n, "base": self.base, "again": self.again}
        return scores | {"difference": self.difference.as_json(), "naive": self.naive.as_json()}


@dataclass(frozen=True, slots=True)
class NullDomain:
    """The null row in one domain: by stratum, and the plain mean of those that hold facts."""

    strata: tuple[NullCell, ...]
    mean: NullCell

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {"strata": [c.as_json() for c in self.strata], "mean": self.mean.as_json()}


@dataclass(frozen=True, slots=True)
class NullRow:
    """The null row by domain, and how many facts the other half would put elsewhere.

    Attributes:
        domains: by domain; one without facts is not in it.
        strata_kept: facts whose stratum both halves of the samples agree on.
    """

    domains: dict[Domain, NullDomain]
    strata_kept: Share

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        domains = {name: found.as_json() for name, found in self.domains.items()}
        return {"domains": domains, "strata_kept": self.strata_kept.as_json()}


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """The samples of some facts, shared out.

    Attributes:
        assigning: bool (F, T, S) of the half that assigns the strata.
        scoring: of the other half.
        quarters: two equal parts of `scoring`; a sample that is left over is in neither.
        stratum_F: by `assigning`.
    """

    assigning: np.ndarray
    scoring: np.ndarray
    quarters: tuple[np.ndarray, np.ndarray]
    stratum_F: np.ndarray


def share_out(verdicts_FTS: np.ndarray, seed: int = 0) -> Shared:
    """Share out the samples of each template: a half for the strata, two quarters for scores.

    Args:
        verdicts_FTS: bool, as `MasteryTable.verdicts` gives them.
        seed: decides which samples go where, the same for all facts and templates.

    Raises:
        MasteryError: fewer than four samples a template.
    """
    n_samples = verdicts_FTS.shape[2]
    if n_samples < _LEAST_SAMPLES:
        raise MasteryError(
            f"The mastery table has {n_samples} samples of each template; the null row needs at "
            f"least {_LEAST_SAMPLES}. Probe the base with more (--samples)."
        )
    order = np.random.default_rng(seed).permutation(n_samples)
    middle, quarter = n_samples // 2, (n_samples - n_samples // 2) // 2
    assigning, scoring = verdicts_FTS[:, :, order[:middle]], verdicts_FTS[:, :, order[middle:]]
    quarters = scoring[:, :, :quarter], scoring[:, :, quarter : 2 * quarter]
    return Shared(assigning, scoring, quarters, _strata(assigning))


def null_row(table: MasteryTable, facts: Sequence[Fact], *, seed: int = 0) -> NullRow:
    """Return the null row of a base on the given facts, such as those of the test split.

    Args:
        table: the base's mastery table; facts that it does not hold are left out.
        facts: of the data that the base was probed on.
        seed: decides which samples go where.

    Raises:
        MasteryError: the table is of other facts, or has too few samples.
    """
    held, rows = probed(table, facts)
    verdicts = table.verdicts()[rows]
    domain_F = np.array([fact.domain for fact in held])
    subject_F = np.unique([fact.subject for fact in held], return_inverse=True)[1]
    return null_row_of(verdicts, domain_F, subject_F, seed)


def null_row_of(
    verdicts_FTS: np.ndarray, domain_F: np.ndarray, subject_F: np.ndarray, seed: int = 0
) -> NullRow:
    """Return the null row of verdicts on samples, wherever they come from."""
    shared = share_out(verdicts_FTS, seed)
    domains = {
        domain: _domain(shared, domain_F == domain, subject_F)
        for domain in DOMAINS
        if (domain_F == domain).any()
    }
    agreeing = int((shared.stratum_F == _strata(shared.scoring)).sum())
    return NullRow(domains, Share(agreeing, len(verdicts_FTS)))


def _domain(shared: Shared, inside_F: np.ndarray, subject_F: np.ndarray) -> NullDomain:
    groups = [inside_F & (shared.stratum_F == s) for s in range(N_STRATA)]
    scored = [_share_right(part) for part in shared.quarters]
    halves = [_share_right(part) for part in (shared.assigning, shared.scoring)]
    strata = [_cell([group], scored, halves, subject_F) for group in groups]
    return NullDomain(tuple(strata), _cell(groups, scored, halves, subject_F))


def _cell(
    groups: Sequence[np.ndarray],
    scored: Sequence[np.ndarray],
    halves: Sequence[np.ndarray],
    subject_F: np.ndarray,
) -> NullCell:
    held = [group for group in groups if group.any()]
    if not held:
        return NullCell(0, None, None, Estimate(None), Estimate(None))
    base, again = (float(np.mean([part[group].mean() for group in held])) for part in scored)
    return NullCell(
        sum(int(group.sum()) for group in held),
        base,
        again,
        clustered_difference(scored[1] - scored[0], held, subject_F),
        clustered_difference(halves[1] - halves[0], held, subject_F),
    )


def probed(table: MasteryTable, facts: Sequence[Fact]) -> tuple[list[Fact], np.ndarray]:
    """Return those of the facts that the table holds, and their rows in it.

    Raises:
        MasteryError: the table is of other facts.
    """
    known = table.strata_of(facts)
    place = {name: row for row, name in enumerate(table.rows["fact_id"].to_pylist())}
    held = [fact for fact in facts if fact.id in known]
    return held, np.array([place[fact.id] for fact in held])


def _strata(verdicts_FTS: np.ndarray) -> np.ndarray:
    n_samples = verdicts_FTS.shape[1] * verdicts_FTS.shape[2]
    by_count = np.array([stratum(count, n_samples) for count in range(n_samples + 1)])
    strata: np.ndarray = by_count[verdicts_FTS.sum(axis=(1, 2))]
    return strata


def _share_right(verdicts_FTS: np.ndarray) -> np.ndarray:
    share: np.ndarray = verdicts_FTS.mean(axis=(1, 2))
    return share
