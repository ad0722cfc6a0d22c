"""The mini-world's task that is not about facts: made, trained, scored by lm-eval, restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from sftknow_eval.artifacts import read_json
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.study.echo import TASK, TEST, TRAIN, write_echo
from sftknow_eval.study.study import read_plan, run_study


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rows_ask_for_a_name_that_stands_in_the_prompt(
    tiny_world: Path, tmp_path: Path
) -> None:
    write_echo(str(tiny_world), 50, 0, tmp_path)
    names = {fact.answer for fact in open_dataset(tiny_world).facts("train", domain="id")}
    train, test = rows(tmp_path / TRAIN), rows(tmp_path / TEST)
    assert len(train) == 50
    for row in (*train, *test):
        assert row["prompt"].count(row["name"]) == 1
        assert row["target"] == f" {row['name']}"
        assert row["name"] in names
    assert train != test[:50]
    task = yaml.safe_load((tmp_path / f"{TASK}.yaml").read_text())
    assert task["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / TEST)


def test_the_task_is_trained_and_swept_by_the_same_verbs(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_study(
        "  - {strategy: base}\n",
        "other_tasks: [{name: echo, make: echo, n: 400, ratios: [0, 100], limit: 40,\n"
        "  settings: {learning_rate: 1e-2, epochs: 2}}]\n",
    )
    plan = read_plan(path)
    index = run_study(plan, tmp_path / "out", workers=1, only="other/echo").index
    (task,) = index["other_tasks"]
    assert task["status"] == "done"
    swept = read_json(tmp_path / "out" / task["sweep"] / "sweep.json")
    scores = {p["ratio"]: p["tasks"][TASK]["exact_match,answer"]["value"] for p in swept["points"]}
    # What the training taught goes when all its weights do: the base was never asked this.
    assert scores[0] >= scores[100]
    assert scores.keys() == {0, 100}
    record = read_json(tmp_path / "out" / task["model"] / "sftknow.json")
    assert (record["prompt"], record["n"]) == ("own", 400)
