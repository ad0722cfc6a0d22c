"""A sweep over ratios on a small random pair: real recipes, a real engine, real lm-eval runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.artifacts import locked
from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.evaluation.facts_file import read_outcomes
from sftknow_eval.restoration.on_load import Choice
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.sweep.points import same_models, series, task_metrics
from sftknow_eval.sweep.request import FactSet
from sftknow_eval.sweep.run import sweep, sweep_sets

OTHER_TASK = """
task: sftknow_test_letters
custom_dataset: !function letters.documents
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}}"
doc_to_target: 0
doc_to_choice: ["a", "b"]
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
OTHER_DOCUMENTS = """
import datasets

def documents(**_):
    rows = [{"text": f"{number} is"} for number in range(8)]
    return {"test": datasets.Dataset.from_list(rows)}
"""


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A task that is not ours: two choices after a number."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "letters.yaml").write_text(OTHER_TASK)
    (folder / "letters.py").write_text(OTHER_DOCUMENTS)
    return folder


def test_every_ratio_is_scored_by_one_engine_on_any_tasks(
    request_of: Any, task_folder: Path, tmp_path: Path, random_model: Path, tuned: Path
) -> None:
    said: list[str] = []
    tasks = ("sftknow_cbqa", "sftknow_test_letters")
    request = request_of(ratios=(0, 10, 40, 60), tasks=tasks, include_path=task_folder)
    out = tmp_path / "out"
    summary = sweep(request, out, said.append)
    points = {point["ratio"]: point for point in summary["points"]}
    # Past a third every changed weight is back, so that 60% is the model of 40%.
    assert {ratio: point["same_as"] for ratio, point in points.items()} == {
        **{0: None, 10: None, 40: None},
        60: 40,
    }
    assert said.count("0%: starting the engine") == 1
    assert [line for line in said if "swapping" in line] == [
        "10%: swapping weights",
        "40%: swapping weights",
    ]
    assert any("60%: skipped, the same model as 40% (all changed" in line for line in said)
    for ratio in (0, 10, 40):
        recipe = Recipe.read(out / "recipes" / f"ratio-{ratio}.json")
        record = points[ratio]["restoration"]
        assert record["restoration"] == recipe.digest
        assert len(record["checksum"]) == 64
        assert record["canary"]
        shown = series(points[ratio])
        assert set(shown) == {"facts, ID", "facts, OOD", "sftknow_test_letters, acc"}
        assert len(read_outcomes(out / f"ratio-{ratio}", "finetuned")) == 15
    checksums = {points[ratio]["restoration"]["checksum"] for ratio in (0, 10, 40)}
    assert len(checksums) == 3
    assert (out / "curve.svg").read_text().startswith("<svg")
    # The scores at 40% are those of that model loaded by itself, in an engine of its own.
    alone = sweep(request_of(ratios=(40,), tasks=tasks, include_path=task_folder), tmp_path / "b")
    (point,) = alone["points"]
    for name in ("scores", "tasks", "restoration"):
        assert point[name] == points[40][name]


def test_a_sweep_that_was_stopped_goes_on_and_other_settings_are_refused(
    request_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sftknow_eval.restoration.hf_model import RestoredHF

    out = tmp_path / "out"

    def fails(self: Any, choice: Choice) -> None:
        raise CheckpointError("the swap failed halfway")

    with monkeypatch.context() as patched:
        patched.setattr(RestoredHF, "restore", fails)
        with pytest.raises(CheckpointError, match="halfway"):
            sweep(request_of(), out)
    # What was finished is kept; nothing looks like a score of the ratio that failed.
    assert sorted(path.name for path in out.glob("ratio-*")) == ["ratio-0"]
    before = (out / "ratio-0" / "results.json").read_bytes()
    said: list[str] = []
    first = sweep(request_of(), out, said.append)
    assert "0%: finished before" in said
    assert "10%: starting the engine" in said
    assert (out / "ratio-0" / "results.json").read_bytes() == before
    said.clear()
    assert sweep(request_of(), out, said.append) == first
    assert not any("engine" in line or "swapping" in line for line in said)
    with pytest.raises(SettingsError, match="limit differ"):
        sweep(request_of(limit=2), out)


def test_several_sets_of_facts_share_each_swap(request_of: Any, tmp_path: Path) -> None:
    said: list[str] = []
    sets = {
        "dev": FactSet({"split": "dev"}),
        "test": FactSet({"split": "test"}),
        "train": FactSet({"split": "train"}, ratios=(0, 60)),
    }
    request = request_of(ratios=(0, 10, 40, 60))
    out = tmp_path / "out"
    found = sweep_sets(request, sets, out, said.append, curves=False)
    assert sum("starting" in line for line in said) == 1
    assert sum("swapping" in line for line in said) == 2  # 60% is the model of 40%
    ratios = {name: [point["ratio"] for point in each["points"]] for name, each in found.items()}
    assert ratios == {"dev": [0, 10, 40, 60], "test": [0, 10, 40, 60], "train": [0, 40, 60]}
    for name, each in found.items():
        assert each["task"]["split"] == name
        assert json.loads((out / name / "sweep.json").read_text()) == each
    choice = json.loads((out / "choice.json").read_text())
    assert choice["ratio"] in (0, 10, 40)
    assert not list(out.rglob("curve.*"))
    # Each set has what a sweep over it alone gives: batches do not change a verdict here.
    alone = request_of(ratios=(0, 10, 40, 60), metadata={**request.metadata, "split": "test"})
    single = sweep(alone, tmp_path / "alone")
    for point, other in zip(single["points"], found["test"]["points"], strict=True):
        assert {k: v for k, v in point.items() if k != "settings"} == {
            k: v for k, v in other.items() if k != "settings"
        }
    # A set that was lost is asked again, the others are not.
    before = (out / "dev" / "ratio-10" / "results.json").stat().st_mtime_ns
    shutil.rmtree(out / "test")
    said.clear()
    assert sweep_sets(request, sets, out, said.append, curves=False) == found
    assert (out / "dev" / "ratio-10" / "results.json").stat().st_mtime_ns == before
    said.clear()
    sweep_sets(request, sets, out, said.append, curves=False)
    assert not any("starting" in line for line in said)
    with pytest.raises(SettingsError, match="Sets of facts need a name"):
        sweep_sets(request, {}, out)


def test_faults_are_said_before_the_engine_starts(
    request_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sftknow_eval.sweep import engine

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the engine was started")

    monkeypatch.setattr(engine, "start_engine", never)
    with pytest.raises(SettingsError, match="at least one task"):
        sweep(request_of(tasks=()), tmp_path)
    with pytest.raises(SettingsError, match="knows no task 'sftknow_cbqa_nowhere'"):
        sweep(request_of(tasks=("sftknow_cbqa_nowhere",)), tmp_path)
    with pytest.raises(SettingsError, match="from 0 to 100"):
        sweep(request_of(ratios=(0, 200)), tmp_path)


def test_two_sweeps_into_one_folder_are_refused(request_of: Any, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(SettingsError, match="Another run is writing"):
        sweep(request_of(), tmp_path)


def test_ratios_that_select_the_same_elements_are_one_model(
    random_model: Path, tuned: Path
) -> None:
    choice = Choice(base=str(random_model), ratio=0)
    ratios = (0, 1e-5, 1, 1.00001, 50, 100)
    recipes = choice.recipes(str(tuned), None, ratios)
    assert same_models(recipes) == {1e-5: 0, 1.00001: 1, 100: 50}


def test_a_group_without_a_score_is_replaced_by_its_members() -> None:
    results = {
        "results": {
            "group": {"alias": "group", " ": ""},
            "one": {"alias": "one", "acc,none": 0.5, "acc_stderr,none": 0.1},
            "two": {"alias": "two", "f1,strict": 0.25, "f1_stderr,strict": "N/A"},
        },
        "group_subtasks": {"group": ["one", "two"]},
    }
    assert task_metrics(results, ["group"]) == {
        "one": {"acc": {"value": 0.5, "stderr": 0.1}},
        "two": {"f1,strict": {"value": 0.25, "stderr": None}},
    }


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sftknow_eval", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_both_commands_as_a_user_types_them(
    random_model: Path, tuned: Path, small_data: Path, mastery: Path, tmp_path: Path
) -> None:
    """`sftknow sweep --json`, and one of its ratios by `sftknow lm-eval --model sftknow-hf`."""
    given = ("--mastery", mastery, "--data", small_data, "--style", "plain")
    swept = run(
        *("sweep", random_model, tuned, "--ratios", "0,10", *given, "--out", "swept", "--json"),
        *("--model-args", "device=cpu", "--batch-size", "8"),
        cwd=tmp_path,
    )
    assert swept.returncode == 0, swept.stderr
    point = json.loads(swept.stdout)["points"][1]
    metadata = {"mastery": str(mastery), "data": str(small_data), "style": "plain"}
    done = run(
        *("lm-eval", "--model", "sftknow-hf", "--device", "cpu", "--batch_size", "8"),
        *("--model_args", f"pretrained={tuned},base={random_model},ratio=10"),
        *("--tasks", "sftknow_cbqa_ood", "--metadata", json.dumps(metadata)),
        *("--output_path", "results"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "results").rglob("results_*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["config"]["restoration"] == point["restoration"]
    ours = point["scores"]["ood"]["alias_acc"]["mean"]["value"]
    theirs = found["groups"]["sftknow_cbqa_ood"]["alias_acc,none"]
    assert theirs == pytest.approx(ours)
