"""Putting the tasks into a lm-eval folder and taking them out: only our own files move."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.install import install_tasks, remove_tasks, tasks_path


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_install_copies_the_tasks_and_remove_leaves_nothing(tmp_path: Path) -> None:
    target = install_tasks(tmp_path)
    assert names(tasks_path() / "sftknow_cbqa") <= names(target)
    assert not any(file.is_symlink() for file in target.iterdir())
    assert remove_tasks(tmp_path) == (target, [])
    assert not target.exists()
    assert remove_tasks(tmp_path) == (target, [])


def test_installing_again_changes_nothing_and_repairs_what_is_damaged(tmp_path: Path) -> None:
    leaf = install_tasks(tmp_path) / "sftknow_cbqa_id_0.yaml"
    stamp, content = leaf.stat().st_mtime_ns, leaf.read_bytes()
    install_tasks(tmp_path)
    assert leaf.stat().st_mtime_ns == stamp
    leaf.write_text("damaged")
    install_tasks(tmp_path)
    assert leaf.read_bytes() == content


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "sftknow_cbqa"
    foreign.mkdir()
    (foreign / "own.yaml").write_text("task: own")
    with pytest.raises(SettingsError, match=r"was not made by 'sftknow install-tasks'"):
        install_tasks(tmp_path)
    with pytest.raises(SettingsError, match=r"left as it is"):
        remove_tasks(tmp_path)
    assert names(foreign) == {"own.yaml"}


def test_files_added_by_someone_survive_the_removal(tmp_path: Path) -> None:
    target = install_tasks(tmp_path)
    (target / "own.yaml").write_text("task: own")
    assert remove_tasks(tmp_path) == (target, ["own.yaml"])
    assert names(target) == {"own.yaml"}
