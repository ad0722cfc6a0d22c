"""The action that compares runs: to their base, to plain SFT on the same facts, over draws."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.study.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sftknow_eval.evaluation.results import Outcome

FORMAT = "sftknow-study-comparison/1"
_CELL = ("base", "stratum", "n", "draw")
_FORM = "format_only"


def statistics(job: Job) -> None:
    """Compare the runs of each cell, and sum up each strategy over its draws."""
    runs = [run for run in read_json(job.root / "study.json")["runs"] if _comparable(run)]
    outcomes = _Outcomes(job.root)
    groups = _grouped(runs, _CELL)
    comparisons = []
    for number, members in enumerate(groups):
        job.progress("cells", number, len(groups))
        form = next((run for run in runs if _is_form(run, members[0])), None)
        comparisons.append(_compared(job.settings, members, form, outcomes))
    strategies = _grouped(runs, ("strategy", *_CELL[:3]))
    seeds = [_over_draws(members, outcomes) for members in strategies]
    value = {"format": FORMAT, "comparisons": comparisons, "seeds": seeds}
    write_json(job.out / "comparison.json", value)


def _comparable(run: Mapping[str, Any]) -> bool:
    """Return whether a run was asked what the base was asked, in the table's own strata."""
    return bool(run["evaluation"]["test"]) and run["kind"] not in ("base", "base_again")


def _is_form(run: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    """Return whether a run learned the form only, on the base and draw of another one.

    The first draw's is enough: what the form does is not what the draws are about.
    """
    same = (run["base"], run["draw"]) == (beside["base"], beside["draw"]) and not run["draw"]
    return bool(same and run["strategy"] == _FORM)


def _grouped(
    runs: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[list[Mapping[str, Any]]]:
    groups: defaultdict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[name] for name in names)].append(run)
    return list(groups.values())


class _Outcomes:
    """The outcomes of runs, read when they are first wanted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, str], list[Outcome]] = {}

    def of(self, run: Mapping[str, Any], model: str = "finetuned") -> list[Outcome]:
        """Return what a run, or the base beside it, answered."""
        from sftknow_eval.evaluation.facts_file import read_outcomes

        key = (run["base"] if model == "base" else run["id"], model)
        if key not in self._known:
            self._known[key] = read_outcomes(self._root / run["evaluation"]["test"], model)
        return self._known[key]


def _compared(
    settings: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]],
    form: Mapping[str, Any] | None,
    outcomes: _Outcomes,
) -> dict[str, Any]:
    """Compare the runs of one cell with their base, plain SFT and what learned the form only."""
    from sftknow_eval.evaluation.statistics import compare_runs

    first = members[0]
    reference = next((r["id"] for r in members if r["strategy"] == settings["reference"]), None)
    if form in members:  # where it is compared itself
        form = None
    found = compare_runs(
        outcomes.of(first, "base"),
        {run["id"]: outcomes.of(run) for run in members},
        reference=reference if len(members) > 1 else None,
        others={form["id"]: outcomes.of(form)} if form else None,
        format_only=form["id"] if form else None,
        draws=settings["draws"],
        seed=settings["seed"],
    )
    cell = {name: first[name] for name in _CELL}
    return cell | {"reference": reference, "comparison": found.as_json()}


def _over_draws(members: Sequence[Mapping[str, Any]], outcomes: _Outcomes) -> dict[str, Any]:
    """Return the mean of a strategy's runs on one stratum and n over its draws."""
    from sftknow_eval.evaluation.statistics import seed_summary

    first = members[0]
    summary = seed_summary([outcomes.of(run) for run in members], base=outcomes.of(first, "base"))
    cell = {name: first[name] for name in ("strategy", *_CELL[:3])}
    return cell | {"runs": [run["id"] for run in members], "summary": summary.as_json()}
