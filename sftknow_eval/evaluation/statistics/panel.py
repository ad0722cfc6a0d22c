"""Facts as arrays: the common ground on which several runs are compared.

Suffixes: F facts, G clusters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome
from sftknow_eval.mastery.facts import DOMAINS, Domain

Unit = Literal["subject", "relation"]
UNITS: tuple[Unit, ...] = ("subject", "relation")
_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The facts that all runs were asked, ordered by id.

    Attributes:
        fact_ids: the facts.
        domain_F: `id` or `ood`.
        stratum_F: by the base's mastery, 0 to 4.
        cluster_F: by unit, a number for each subject or relation.
    """

    fact_ids: tuple[str, ...]
    domain_F: np.ndarray
    stratum_F: np.ndarray
    cluster_F: Mapping[Unit, np.ndarray]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], clusters: Mapping[str, str] | None = None) -> Panel:
        """Return the panel of one run's facts.

        Args:
            outcomes: of any run on these facts.
            clusters: subject by fact id; None where the outcomes carry it.

        Raises:
            SettingsError: no facts, a fact twice, or a fact whose subject is not known.
        """
        ordered = sorted(outcomes, key=lambda outcome: outcome.fact_id)
        ids = tuple(outcome.fact_id for outcome in ordered)
        if not ids:
            raise SettingsError("There are no facts to compare: the outcomes are empty.")
        if len(set(ids)) < len(ids):
            twice = sorted({a for a, b in itertools.pairwise(ids) if a == b})
            raise SettingsError(f"A fact stands twice in the outcomes: {_some(twice)}.")
        subjects = [
            outcome.subject if clusters is None else clusters.get(outcome.fact_id, "")
            for outcome in ordered
        ]
        if missing := [name for name, subject in zip(ids, subjects, strict=True) if not subject]:
            raise SettingsError(
                f"The subject of {len(missing)} of {len(ids)} facts is not known, for example "
                f"{_some(missing)}; without it facts of one subject would count as independent. "
                "Files of 'sftknow eval' name it since they have a column 'subject': evaluate "
                "again."
            )
        return cls(
            ids,
            np.array([outcome.domain for outcome in ordered]),
            np.array([outcome.stratum for outcome in ordered], np.int64),
            {
                "subject": _codes(subjects),
                "relation": _codes([outcome.relation for outcome in ordered]),
            },
        )

    def __len__(self) -> int:
        return len(self.fact_ids)

    def verdicts(self, outcomes: Sequence[Outcome], name: str = "a run") -> np.ndarray:
        """Return bool (F): whether the run's answer contains an alias, in the panel's order.

        Raises:
            SettingsError: the outcomes are of other facts, or stratified by another table.
        """
        held = {outcome.fact_id: outcome for outcome in outcomes}
        if len(held) != len(outcomes) or held.keys() != set(self.fact_ids):
            different = sorted(held.keys() ^ set(self.fact_ids)) or sorted(held)
            raise SettingsError(
                f"'{name}' is not of the same facts as the others: {len(different)} facts differ, "
                f"for example {_some(different)}. Evaluate all with the same --split, --limit and "
                "data."
            )
        ordered = [held[fact_id] for fact_id in self.fact_ids]
        strata = np.array([outcome.stratum for outcome in ordered])
        if (other := np.flatnonzero(strata != self.stratum_F)).size:
            raise SettingsError(
                f"'{name}' has {other.size} facts in other strata than the others, for example "
                f"{self.fact_ids[other[0]]}: its base was probed anew, or is another. Evaluate all "
                "with one mastery table (--mastery)."
            )
        return np.array([outcome.recalled for outcome in ordered], bool)

    def domains(self) -> Iterator[tuple[Domain, Panel, np.ndarray]]:
        """Yield each domain that holds facts, its panel, and bool (F): which facts are in it."""
        for domain in DOMAINS:
            inside = self.domain_F == domain
            if inside.any():
                yield domain, self.subset(inside), inside

    def subset(self, inside_F: np.ndarray) -> Panel:
        """Return the panel of some of the facts."""
        return Panel(
            tuple(name for name, held in zip(self.fact_ids, inside_F, strict=True) if held),
            self.domain_F[inside_F],
            self.stratum_F[inside_F],
            {unit: _codes(codes[inside_F]) for unit, codes in self.cluster_F.items()},
        )

    def n_clusters(self, unit: Unit) -> int:
        """Return how many subjects or relations the facts are about."""
        return int(self.cluster_F[unit].max()) + 1


def _codes(values: Any) -> np.ndarray:
    codes: np.ndarray = np.unique(np.asarray(values), return_inverse=True)[1]
    return codes


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
