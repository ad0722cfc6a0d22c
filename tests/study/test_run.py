"""A study at work: what is finished stays, what fails takes only its own with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.study.plan import Plan
from sftknow_eval.study.run import Event
from sftknow_eval.study.study import Outcome, estimate_study, run_study

PlanOf = Callable[..., Plan]

# Eight facts are in every stratum of the tiny world; a thousand are in none.
RUNS = """\
  - {strategy: sft_divided, strata: [0, 4], n: [8], weights: {},
     sweep: {ratios: [0, 20], strata: [0]}}
  - {strategy: sft_divided, strata: [1], n: [1000]}
  - {strategy: restoration, strata: [0], n: [8]}
  - {strategy: base_again}
  - {strategy: sft_mixed, n: [8], settings: {learning_rate: 1e30, epochs: 3}}
"""
DIVERGED = "sft_mixed-sall-n8-d0"
TOO_SMALL = "sft_divided-s1-n1000-d0"


def run(plan: Plan, out: Path, **more: Any) -> tuple[Outcome, list[str]]:
    """Run a study with two workers; return what came out and the steps that were done."""
    begun: list[str] = []

    def note(event: Event) -> None:
        if event.what == "begin" and event.step:
            begun.append(event.step.name)

    return run_study(plan, out, workers=2, on_event=note, **more), begun


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kept by the first test for the others: they start from copies of its folder."""
    return {"folder": tmp_path_factory.mktemp("studies")}


@pytest.fixture
def study(finished: dict[str, Any], plan_of: PlanOf, tmp_path: Path) -> tuple[Plan, Path]:
    """A study that has been run, in a folder of the test's own."""
    plan = plan_of(RUNS)
    kept = finished["folder"] / "out"
    if not kept.exists():
        finished["outcome"], finished["begun"] = run(plan, kept)
    out = tmp_path / "out"
    shutil.copytree(kept, out, copy_function=shutil.copy2)
    return plan, out


def test_a_study_goes_from_a_base_to_comparisons(
    study: tuple[Plan, Path], finished: dict[str, Any]
) -> None:
    _, out = study
    index = read_json(out / "study.json")
    runs = {run["id"]: run for run in index["runs"]}
    assert index["format"] == "sftknow-study/1"
    plain, restored = runs["sft_divided-s0-n8-d0"], runs["restoration-s0-n8-d0"]
    for place in (
        plain["model"] + "/model.safetensors",
        plain["record"],
        plain["evaluation"]["test"] + "/results.json",
        plain["evaluation"]["test"] + "/facts.parquet",
        plain["sweep"] + "/test/sweep.json",
        plain["sweep"] + "/dev/sweep.json",
        plain["weights"] + "/change.json",
        restored["evaluation"]["test"] + "/facts.parquet",
        runs["base_again"]["evaluation"]["test"] + "/null_row.json",
        index["comparison"],
    ):
        assert (out / place).is_file(), place
    # The ratio is that of the sweep's dev facts, and the restored run was asked at it.
    chosen = read_json(out / plain["sweep"] / "choice.json")["ratio"]
    asked = read_json(out / restored["evaluation"]["test"] / "results.json")["finetuned"]
    assert plain["chosen_ratio"] == restored["chosen_ratio"] == chosen
    assert asked["engine_args"]["ratio"] == chosen
    kinds = index["costs"]["kinds"]
    assert {"train", "evaluate", "sweep", "restored"} <= kinds.keys()


def test_a_stratum_that_is_too_small_is_left_out_and_named(study: tuple[Plan, Path]) -> None:
    index = read_json(study[1] / "study.json")
    (left_out,) = [run for run in index["runs"] if run["status"] == "left out"]
    assert left_out["id"] == TOO_SMALL
    assert left_out["reason"].startswith("1000 training facts of stratum 1 were asked for;")


def test_a_training_that_diverges_fails_alone(
    study: tuple[Plan, Path], finished: dict[str, Any]
) -> None:
    index = read_json(study[1] / "study.json")
    (failed,) = [run for run in index["runs"] if run["status"] == "failed"]
    assert failed["id"] == DIVERGED
    assert "diverged" in failed["reason"]
    assert not index["finished"]
    others = {run["status"] for run in index["runs"]} - {"failed", "left out"}
    assert others == {"done"}
    assert finished["outcome"].failed.keys() == {f"runs/{DIVERGED}/model"}


def test_a_second_run_only_tries_what_failed_again(study: tuple[Plan, Path]) -> None:
    plan, out = study
    before = read_json(out / "statistics" / "comparison.json")
    outcome, begun = run(plan, out)
    assert begun == [f"runs/{DIVERGED}/model"]
    assert outcome.failed
    assert read_json(out / "statistics" / "comparison.json") == before


def test_a_changed_setting_redoes_only_what_depends_on_it(
    study: tuple[Plan, Path], plan_of: PlanOf
) -> None:
    _, out = study
    healthy = RUNS.replace("learning_rate: 1e30, epochs: 3", "learning_rate: 1e-3")
    outcome, begun = run(plan_of(healthy), out)
    run_folder = f"runs/{DIVERGED}"
    assert begun == [f"{run_folder}/model", f"{run_folder}/eval-test", "statistics"]
    assert outcome.index["finished"]
    assert not outcome.failed


def test_a_lost_output_is_made_again(study: tuple[Plan, Path]) -> None:
    plan, out = study
    lost = "runs/sft_divided-s4-n8-d0/weights"
    shutil.rmtree(out / lost)
    assert lost in run(plan, out)[1]


def test_only_does_what_it_names(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of(RUNS)
    outcome, begun = run(plan, tmp_path / "out", only="runs/sft_divided-s4-n8-d0/weights")
    folder = "runs/sft_divided-s4-n8-d0"
    assert begun == [f"{folder}/model", f"{folder}/weights"]
    assert not outcome.index["finished"]


def test_only_keeps_what_is_known_of_the_rest(study: tuple[Plan, Path]) -> None:
    plan, out = study
    before = read_json(out / "study.json")
    shutil.rmtree(out / "runs/sft_divided-s4-n8-d0/weights")
    outcome, begun = run(plan, out, only="weights")
    assert begun == ["runs/sft_divided-s4-n8-d0/weights"]
    statuses = [
        {run["id"]: run["status"] for run in index["runs"]} for index in (before, outcome.index)
    ]
    # What failed is not tried again by this, so nothing is said about it.
    assert statuses[1] == statuses[0] | {DIVERGED: "not run"}


def test_a_dry_run_counts_what_is_left(study: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, out = study
    fresh, left = estimate_study(plan, None), estimate_study(plan, out)
    assert fresh.kinds["train"].finished == 0
    # Both fine-tunes are finished; the failed one is not.
    assert (left.kinds["train"].finished, left.kinds["train"].steps) == (2, 3)
    assert [line.partition(":")[0] for line in left.left_out] == [TOO_SMALL]
    assert left.hours < fresh.hours


def test_a_study_for_gpus_is_refused_by_name_where_there_are_none(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_study(RUNS, "compute: {device: gpu, gpus: 2}\n")
    done = sftknow("study", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "The study 'small' needs 2 GPUs" in done.stderr
    planned = sftknow("study", path, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "GPU-hours" in planned.stdout


def test_a_folder_of_something_else_is_refused(plan_of: PlanOf, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(SettingsError, match="holds something else than a study"):
        run_study(plan_of(RUNS), tmp_path / "out")


def sftknow(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "sftknow_eval", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
