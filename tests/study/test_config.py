"""A study's file: every fault is listed, and the plan follows from what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.study.checks import load_study
from sftknow_eval.study.plan import Plan
from sftknow_eval.study.select import wanted_steps
from sftknow_eval.study.step import digests
from sftknow_eval.study.study import estimate_study, read_plan

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

FAULTY = """\
name: faulty
bases:
  - {world: {size: tinny}}
  - {id: base, model: here, wordl: {}}
evaluation: {backend: hff}
training: {learning_rat: 1e-3}
runs:
  - strategy: sft_divided
    bases: [bass]
    n: [24]
    draws: 1
    sweep: {n: [42], draws: 2, ratio: [1]}
"""


def test_all_faults_are_listed_with_lines_and_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(FAULTY)
    with pytest.raises(SettingsError) as caught:
        load_study(path)
    text = str(caught.value)
    # Counted by hand in FAULTY: one fault each, on the line where it is written.
    expected = [
        "line 3: bases.0.world.size: is 'tinny'; one of tiny, demo was expected",
        "line 4: bases.1: 'base' is the id of another base",
        "line 4: bases.1.wordl: is no setting here",
        "did you mean 'world'?",
        "line 5: evaluation.backend: is 'hff'",
        "line 6: training.learning_rat: is no setting of the training; did you mean "
        "'learning_rate'?",
        "line 9: runs.0.bases: no base has the id 'bass'; did you mean 'base'?",
        "line 12: runs.0.sweep.n: the group has no n 42 (it has 24)",
        "line 12: runs.0.sweep.draws: 2 draws, but the group has 1",
        "line 12: runs.0.sweep.ratio: is no setting here",
    ]
    for line in expected:
        assert line in text, text


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*.yaml")) + sorted(CONFIGS.glob("paper/*.yaml"))
)
def test_every_configuration_of_the_project_can_be_planned(path: Path) -> None:
    plan = read_plan(path)
    assert plan.steps
    if path.parent.name == "paper":
        found = estimate_study(plan, None)
        # 75,944 train facts in the paper's strata: see data/paper_tables.json.
        assert found.hours > 1
        assert any("75,944 train" in line for line in found.assumptions)


def test_the_demo_is_what_it_promises() -> None:
    plan = read_plan(CONFIGS / "demo.yaml")
    plain = [run for run in plan.runs.values() if run.cell.strategy == "sft_divided"]
    # Five strata x three N x three draws; a full sweep on one draw of each cell.
    assert len(plain) == 45
    swept = [run.cell for run in plain if "sweep" in run.steps]
    assert len(swept) == len({(cell.stratum, cell.n) for cell in swept}) == 15
    strategies = {run.cell.strategy for run in plan.runs.values()}
    assert {"base", "base_again", "format_only", "sft_mixed", "lora", "restoration"} <= strategies


def test_a_derived_run_without_its_source_is_refused(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(SettingsError, match=r"restoration-s0-n8-d0 is made from sft_divided-s0-n8"):
        plan_of("  - {strategy: restoration, strata: [0], n: [8]}\n")


def test_a_restoration_without_a_sweep_over_dev_is_refused(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(SettingsError, match=r"chosen on a sweep over dev.*group a 'sweep'"):
        plan_of(
            "  - {strategy: sft_divided, strata: [0], n: [8]}\n"
            "  - {strategy: restoration, strata: [0], n: [8]}\n"
        )


def test_an_unknown_strategy_names_the_nearest(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(SettingsError, match=r"no strategy 'sft_dividet'.*'sft_divided'"):
        plan_of("  - {strategy: sft_dividet}\n")


def test_a_changed_setting_changes_what_depends_on_it_and_nothing_else(
    plan_of: Callable[..., Plan],
) -> None:
    two = (
        "  - {strategy: sft_divided, strata: [0], n: [8], weights: {}}\n"
        "  - {strategy: sft_mixed, n: [8], settings: {learning_rate: RATE}}\n"
    )
    before, after = (digests(plan_of(two.replace("RATE", rate)).steps) for rate in ("1e-3", "2e-3"))
    changed = {name for name, digest in before.items() if after[name] != digest}
    mixed = "runs/sft_mixed-sall-n8-d0"
    assert changed == {f"{mixed}/model", f"{mixed}/eval-test", "statistics"}


def test_only_takes_kinds_runs_and_steps_with_their_needs(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of("  - {strategy: sft_divided, strata: [0, 4], n: [8], weights: {}}\n")
    run = "runs/sft_divided-s0-n8-d0"
    assert wanted_steps(plan, "train") == {
        "runs/sft_divided-s0-n8-d0/model",
        "runs/sft_divided-s4-n8-d0/model",
    }
    assert wanted_steps(plan, f"{run}/weights") == {f"{run}/model", f"{run}/weights"}
    assert wanted_steps(plan, "sft_divided-s0-n8-d0") == {
        *(f"{run}/{name}" for name in ("model", "weights", "eval-test")),
        "runs/base/eval-test",
    }
    with pytest.raises(SettingsError, match=r"--only 'weigths' names no step.*'weights'"):
        wanted_steps(plan, "weigths")
