"""All runs of one base against it and against each other: the comparison that others show.

Source: Holm, Scandinavian Journal of Statistics 6 (1979). A *family* is
what one reads together: all runs set against the same other, in one domain, at one level
(`strata`: five tests a run; `all` and `mean`: one a run).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import CONFIDENCE, Outcome
from sftknow_eval.evaluation.statistics.paired import Cell, PairedDomain, paired_domain
from sftknow_eval.evaluation.statistics.panel import UNITS, Panel
from sftknow_eval.evaluation.statistics.significance import POWER, holm
from sftknow_eval.mastery.facts import DOMAINS, Domain

FORMAT = "sftknow-comparison/1"
DRAWS = 10_000
BASE = "base"

Role = Literal["base", "reference", "format_only"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One run against one other.

    Attributes:
        run: name of the run.
        against: name of the other; `base` is the base.
        role: what the other stands for.
        domains: the comparison by domain; a domain without facts is not in it.
    """

    run: str
    against: str
    role: Role
    domains: dict[Domain, PairedDomain]

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        domains = {name: found.as_json() for name, found in self.domains.items()}
        return {"run": self.run, "against": self.against, "role": self.role, "domains": domains}


@dataclass(frozen=True, slots=True)
class Family:
    """The tests that were adjusted together.

    Attributes:
        against: the other that all runs are set against.
        domain: of the facts.
        level: `strata`, `all` or `mean`.
        tests: how many have a p-value.
        significant: how many are below 0.05 after adjustment.
    """

    against: str
    domain: Domain
    level: str
    tests: int
    significant: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of several runs: every pair, and the families of tests.

    Attributes:
        pairs: each run against the base, then against the reference, then against the fine-tune
            of the form only.
        families: by other, domain and level.
        record: facts, clusters, draws, seed, confidence.
    """

    pairs: tuple[Pair, ...]
    families: tuple[Family, ...]
    record: dict[str, Any]

    def pair(self, run: str, against: str = BASE) -> Pair:
        """Return one pair.

        Raises:
            KeyError: these two were not compared.
        """
        for found in self.pairs:
            if (found.run, found.against) == (run, against):
                return found
        raise KeyError((run, against))

    def as_json(self) -> dict[str, Any]:
        """Return all numbers, in the format `sftknow-comparison/1`."""
        return {
            "format": FORMAT,
            **self.record,
            "pairs": [pair.as_json() for pair in self.pairs],
            "families": [dataclasses.asdict(family) for family in self.families],
        }


def compare_runs(
    base: Sequence[Outcome] | None,
    runs: Mapping[str, Sequence[Outcome]],
    clusters: Mapping[str, str] | None = None,
    reference: str | None = None,
    *,
    format_only: str | None = None,
    others: Mapping[str, Sequence[Outcome]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare runs with their base, and with one or two among themselves, fact by fact.

    Args:
        base: the base's answers, completing its best templates; None to compare the runs with the
            reference only.
        runs: outcomes by name of run, all on the base's facts and strata.
        clusters: subject by fact id; None where the outcomes carry it.
        reference: name of the run that stands for plain fine-tuning, if there is one.
        format_only: name of the run that learned the prompt's form only, if there is one.
        others: runs that stand as reference or form only and are not compared themselves.
        draws: of bootstrap and sign flips.
        seed: of the draws; equal seeds give equal numbers.

    Raises:
        SettingsError: runs of other facts or strata, unknown subjects, or names that are not
            those of runs.
    """
    known = {**(others or {}), **runs}
    _check(known, runs, {"reference": reference, "format_only": format_only}, draws)
    asked = known if base is None else {BASE: base, **known}
    panel = Panel.of(next(iter(asked.values())), clusters)
    verdicts = {name: panel.verdicts(outcomes, name) for name, outcomes in asked.items()}
    roles: dict[str, Role] = {} if base is None else {BASE: "base"}
    if reference is not None:
        roles[reference] = "reference"
    if format_only is not None:
        roles.setdefault(format_only, "format_only")
    pairs = [
        Pair(run, other, role, _domains(panel, verdicts[run], verdicts[other], draws, seed))
        for other, role in roles.items()
        for run in runs
        if run != other
    ]
    adjusted, families = _families(pairs)
    return Comparison(tuple(adjusted), tuple(families), _record(panel, runs, draws, seed))


def _check(
    known: Mapping[str, Sequence[Outcome]],
    runs: Mapping[str, Sequence[Outcome]],
    named: Mapping[str, str | None],
    draws: int,
) -> None:
    faults = []
    if not runs:
        faults.append("there is no run to compare with the base")
    if BASE in known:
        faults.append(f"a run is called '{BASE}', which is the name of the base itself")
    for role, name in named.items():
        if name is not None and name not in known:
            faults.append(f"the {role} '{name}' is not among the runs {', '.join(sorted(known))}")
    if draws < 100:
        faults.append(f"{draws} draws are too few for an interval; give at least 100")
    if faults:
        raise SettingsError("; ".join(faults).capitalize() + ".")


def _domains(
    panel: Panel, run_F: np.ndarray, other_F: np.ndarray, draws: int, seed: int
) -> dict[Domain, PairedDomain]:
    # The same seed for each pair: a pair's numbers do not depend on which others are compared.
    return {
        domain: paired_domain(
            facts, run_F[inside], other_F[inside], draws, np.random.default_rng([seed, number])
        )
        for number, (domain, facts, inside) in enumerate(panel.domains())
    }


def _families(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Family]]:
    """Return the pairs with adjusted p-values, and the families that they were adjusted in."""
    adjusted = {(p.run, p.against): dict(p.domains) for p in pairs}
    families = []
    for against in dict.fromkeys(pair.against for pair in pairs):
        for domain in DOMAINS:
            members = [p for p in pairs if p.against == against and domain in p.domains]
            for level in ("strata", "all", "mean") if members else ():
                p_values = [c.p for p in members for c in _cells(p.domains[domain], level)]
                found = holm(p_values)
                left = iter(found)
                for pair in members:
                    cells = adjusted[pair.run, against]
                    cells[domain] = _with(cells[domain], level, left)
                tests = [value for value in found if value is not None]
                below = sum(value < 1 - CONFIDENCE for value in tests)
                families.append(Family(against, domain, level, len(tests), below))
    return [
        dataclasses.replace(pair, domains=adjusted[pair.run, pair.against]) for pair in pairs
    ], families


def _cells(found: PairedDomain, level: str) -> tuple[Cell, ...]:
    return {"strata": found.strata, "all": (found.pooled,), "mean": (found.mean,)}[level]


def _with(found: PairedDomain, level: str, p_holm: Any) -> PairedDomain:
    cells = tuple(cell.adjusted(next(p_holm)) for cell in _cells(found, level))
    if level == "strata":
        return dataclasses.replace(found, strata=cells)
    if level == "all":
        return dataclasses.replace(found, pooled=cells[0])
    return dataclasses.replace(found, mean=cells[0])


def _record(
    panel: Panel, runs: Mapping[str, Sequence[Outcome]], draws: int, seed: int
) -> dict[str, Any]:
    return {
        "runs": list(runs),
        "facts": {domain: len(facts) for domain, facts, _ in panel.domains()},
        "clusters": {
            unit: {domain: facts.n_clusters(unit) for domain, facts, _ in panel.domains()}
            for unit in UNITS
        },
        "draws": draws,
        "seed": seed,
        "confidence": CONFIDENCE,
        "power": POWER,
    }
