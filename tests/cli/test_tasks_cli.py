"""`sftknow install-tasks` and `sftknow lm-eval`: what they print, refuse and pass on."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from cli_calls import Sftknow

from sftknow_eval.cli import tasks
from sftknow_eval.evaluation.install import tasks_path


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


@pytest.fixture
def lm_eval_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sftknow_eval.evaluation.install.lm_eval_tasks", lambda: tmp_path)
    return tmp_path


def test_install_and_remove_say_where(sftknow: Sftknow, lm_eval_folder: Path) -> None:
    target = lm_eval_folder / "sftknow_cbqa"
    done = sftknow("install-tasks")
    assert done.code == 0
    assert f"Installed in {target}" in done.out
    assert (target / "sftknow_cbqa_id_0.yaml").is_file()
    (target / "mine.yaml").write_text("task: mine")
    assert "left there, as it is not ours: mine.yaml" in sftknow("install-tasks", "--remove").out


def test_a_foreign_folder_ends_with_code_2(sftknow: Sftknow, lm_eval_folder: Path) -> None:
    (lm_eval_folder / "sftknow_cbqa").mkdir()
    done = sftknow("install-tasks")
    assert done.code == 2
    assert "Move it away" in done.err


def test_lm_evals_help_is_lm_evals(sftknow: Sftknow) -> None:
    done = sftknow("lm-eval", "run", "--help")
    assert done.code == 0
    assert "--num_fewshot" in done.out


def test_our_tasks_come_beside_those_that_the_user_names(tmp_path: Path) -> None:
    arguments = Namespace(include_path="/mine", config=None)
    tasks._add_tasks(arguments)
    assert arguments.include_path == ["/mine", str(tasks_path())]
    config = tmp_path / "run.yaml"
    config.write_text("include_path: /from/config\n")
    arguments = Namespace(include_path=None, config=str(config))
    tasks._add_tasks(arguments)
    assert arguments.include_path == ["/from/config", str(tasks_path())]


def test_base_goes_to_the_tasks_where_the_model_takes_none() -> None:
    model_args = {"pretrained": "tuned", "base": "base"}
    arguments = Namespace(model="hf", model_args=model_args, metadata={"split": "dev"})
    tasks._move_base(arguments)
    assert arguments.model_args == {"pretrained": "tuned"}
    assert arguments.metadata == {"base": "base", "split": "dev"}


def test_what_metadata_says_of_the_base_goes_first() -> None:
    model_args = {"pretrained": "tuned", "base": "one"}
    arguments = Namespace(model="hf", model_args=model_args, metadata={"base": "other"})
    tasks._move_base(arguments)
    assert arguments.metadata["base"] == "other"
