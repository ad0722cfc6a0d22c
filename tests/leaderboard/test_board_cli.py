"""`sftknow board` as it is called: exit codes 0, 1, 2 and what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from board_making import ROW
from forging import row_folder, set_in


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "sftknow_eval", "board", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        check=False,
    )


def test_a_board_in_order_exits_with_0(honest_board: Path) -> None:
    done = call("verify", honest_board)

    assert done.returncode == 0, done.stderr
    assert "4 verified, 0 refused." in done.stdout


@pytest.mark.parametrize("form", ["rich", "json", "github"])
def test_a_refused_row_exits_with_1_and_its_reason(board_copy: Path, form: str) -> None:
    set_in(row_folder(board_copy), "title", "<script>alert(1)</script>")

    done = call("verify", row_folder(board_copy), "--format", form)

    assert done.returncode == 1
    assert "markup" in done.stdout
    if form == "json":
        assert json.loads(done.stdout)["verdicts"][0]["path"] == ROW
    if form == "github":
        assert done.stdout.startswith("::error file=submissions/")


def test_wrong_use_exits_with_2(tmp_path: Path) -> None:
    done = call("verify", tmp_path)

    assert done.returncode == 2
    assert "belongs to no leaderboard" in done.stderr


def test_what_only_the_submitter_can_say_is_asked_for(tmp_path: Path) -> None:
    done = call("submit", tmp_path, "--root", tmp_path / "leaderboard")

    assert done.returncode == 2
    assert "--contact is missing" in done.stderr


def test_a_folder_without_results_is_said(tmp_path: Path) -> None:
    options = ("--contact", "@me", "--licence", "CC0-1.0", "--training-data", "nothing")

    done = call("submit", tmp_path, "--root", tmp_path / "leaderboard", *options)

    assert done.returncode == 2
    assert "holds no results" in done.stderr
