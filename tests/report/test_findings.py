"""The rule of the verdicts, and the paper's figures that it compares with."""

from __future__ import annotations

import pytest

from sftknow_eval.evaluation.statistics import Difference
from sftknow_eval.report.effects import MARGIN, Effect, Finding, kept_or_fallen
from sftknow_eval.report.findings_weights import over_runs
from sftknow_eval.report.study_read import paper


def _effect(low: float | None, high: float | None, *, sign: int = -1, size: float | None) -> Effect:
    value = None if low is None or high is None else (low + high) / 2
    direction = 1 if sign > 0 else -1
    return Effect("an effect", direction, size, value, low, high)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "size", "verdict"),
    [
        (-0.10, -0.02, -0.05, "shown"),  # wholly on the paper's side
        (-0.01, -0.001, -0.50, "shown"),  # however small beside the paper's
        (0.01, 0.10, -0.05, "not shown"),  # wholly on the other side
        (-0.02, 0.03, -0.05, "not shown"),  # zero is in, the paper's size is not
        (-0.06, 0.03, -0.05, "cannot tell"),  # both are in
        (-0.06, 0.03, None, "cannot tell"),  # the paper gives a direction only
        (None, None, -0.05, "cannot tell"),  # not measured
    ],
)
def test_the_verdict_follows_from_the_interval(
    low: float | None, high: float | None, size: float | None, verdict: str
) -> None:
    assert _effect(low, high, size=size).verdict == verdict
    # The same with all signs turned round.
    turned = [None if bound is None else -bound for bound in (high, low)]
    other = None if size is None else -size
    assert _effect(*turned, sign=1, size=other).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.04, 0.03, "shown"),  # no fall of 5 points is in
        (0.02, 0.30, "shown"),  # a gain is no loss
        (-0.20, -0.06, "not shown"),  # wholly below it
        (-0.08, 0.03, "cannot tell"),  # the margin is in
        (None, None, "cannot tell"),
    ],
)
def test_what_is_kept_is_told_by_its_margin(
    low: float | None, high: float | None, verdict: str
) -> None:
    found = None if low is None or high is None else Difference(0.0, low, high, 0.01, False)
    effect = kept_or_fallen("a task", 1.03, found)  # GSM8K at 20%, Table 5
    assert (effect.verdict, effect.margin) == (verdict, 0.05)
    assert effect.p is None  # of a test of zero, which tells nothing here


def test_a_fall_in_the_paper_is_tried_as_a_fall() -> None:
    # GSM8K at 40%, Table 5: 57.69 to 0.
    effect = kept_or_fallen("a task", -57.69, Difference(-0.3, -0.4, -0.2, 0.01, False))
    assert (effect.sign, effect.margin, effect.verdict) == (-1, None, "shown")
    kept = kept_or_fallen("a task", -57.69, Difference(0.0, -0.1, 0.1, 1.0, False))
    assert kept.verdict == "not shown"


def test_no_cell_of_the_paper_depends_on_where_the_margin_stands() -> None:
    # All differences to nothing given back: Tables 5 (GSM8K), 6 and 11.
    tasks = paper()["restoration_other_tasks_LLaMA-3-8B"]["GSM8K accuracy"]
    rows = [tasks, *(r for n in ("240", "1920") for r in _own(n))]
    changes = [value - row[0] for row in rows for value in row[1:]]
    ranges = paper()["layer_range_restoration_LLaMA-3-8B_id"]
    whole = paper()["restoration_LLaMA-3-8B"]["id"]["240"]
    names = [f"train-{s}" for s in range(5)]
    changes += [value - whole[name][0] for name in names for value in ranges[name]]
    assert not [change for change in changes if -5.5 < change < -2.9]
    assert sum(change < -100 * MARGIN for change in changes) == 2 + 1 + 8


def _own(n: str) -> list[list[float]]:
    return list(paper()["restoration_training_set_LLaMA-3-8B"][n].values())


def test_values_of_several_runs_have_students_interval() -> None:
    # t at 0.975 with two degrees of freedom is 4.3027; the sd of 1, 2, 3 is 1.
    found = over_runs([1.0, 2.0, 3.0])
    assert found is not None
    assert found.value == 2.0
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    assert found.over_seeds
    alone = over_runs([0.3])
    assert alone == Difference(0.3, 0.3, 0.3, None, over_seeds=False)
    assert over_runs([]) is None


def test_a_finding_says_how_many_effects_show_it() -> None:
    shown, told = _effect(-0.2, -0.1, size=-0.1), _effect(None, None, size=-0.1)
    assert Finding("f", "c", (shown, shown)).verdict == "shown"
    assert Finding("f", "c", (shown, told, shown)).verdict == "shown 2, cannot tell 1"
    assert Finding("f", "c", ()).verdict == "cannot tell"


def test_the_papers_figures_are_all_there() -> None:
    # Source: the paper's tables, as named; single values read off them.
    tables = paper()
    assert tables["strata_counts"]["LLaMA-3-8B"]["train"][0] == 18456  # Table 1
    assert tables["accuracy_sft_1920"]["LLaMA-3-70B"]["train-2"]["ood"]["mean"] == 57.69  # 2
    assert tables["update_concentration_LLaMA-3-8B"]["1920"]["train-0"][0] == 70.56  # 3
    assert tables["restoration_LLaMA-3-8B"]["id"]["1920"]["train-0"][5] == 54.81  # 4
    assert tables["restoration_other_tasks_LLaMA-3-8B"]["GSM8K accuracy"][4] == 59.6  # 5
    assert tables["restoration_training_set_LLaMA-3-8B"]["240"]["train-4"][2] == 82.92  # 6
    assert tables["strategies_LLaMA-3-8B"]["Parameter restoration"]["id"] == 62.21  # 7
    assert len(tables["strata_counts"]) == 5  # 8
    assert sum(tables["restored_share_by_layer_LLaMA-3-8B"]) == pytest.approx(100, abs=0.2)  # 9
    assert sum(tables["restored_share_by_module_LLaMA-3-8B"].values()) == pytest.approx(100, 1e-3)
    assert len(tables["layer_range_restoration_LLaMA-3-8B_id"]["layers"]) == 8  # 11
