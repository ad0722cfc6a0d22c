"""Honest rows are recomputed; what verification says, and to whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from board_making import OTHER, RANDOM, RESTORED, ROW

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.announce import as_json, github_lines
from sftknow_eval.leaderboard.rows import Flag
from sftknow_eval.leaderboard.verify import Verdict, verify


def test_every_honest_row_is_recomputed(honest_board: Path) -> None:
    verdicts = verify(honest_board)

    assert {v.path: (v.status, v.reasons) for v in verdicts} == dict.fromkeys(
        (OTHER, RANDOM, RESTORED, ROW), ("recomputed", ())
    )


def test_a_part_of_a_board_is_verified_alone(honest_board: Path) -> None:
    verdicts = verify(honest_board / "submissions" / RESTORED)

    assert [v.path for v in verdicts] == [RESTORED]


def test_several_rows_can_be_named(honest_board: Path) -> None:
    top = honest_board / "submissions"

    assert {v.path for v in verify([top / ROW, top / OTHER])} == {ROW, OTHER}


def test_a_file_of_a_row_stands_for_the_row(honest_board: Path) -> None:
    path = honest_board / "submissions" / ROW / "manifest.json"

    assert [v.path for v in verify(path)] == [ROW]


def test_a_place_outside_a_leaderboard_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="belongs to no leaderboard"):
        verify(tmp_path)


def test_a_board_without_rows_has_nothing_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "submissions").mkdir()
    (tmp_path / "mastery").mkdir()

    assert verify(tmp_path) == []


def test_verifying_imports_no_model_library(honest_board: Path) -> None:
    check = (
        "import sys; from pathlib import Path\n"
        "from sftknow_eval.leaderboard.verify import verify\n"
        f"assert not any(v.reasons for v in verify(Path({str(honest_board)!r})))\n"
        "print([m for m in ('torch', 'transformers', 'vllm', 'trl', 'peft', 'lm_eval')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# The commands of GitHub Actions: '%', line ends, and in properties ':' and ',' are escaped
# (documented under "Workflow commands").
def test_github_annotations_cannot_be_broken_out_of() -> None:
    verdict = Verdict("a,b:c", "refused", ("50%\n::error::forged\r\x1b[31m",))

    lines = list(github_lines([verdict]))

    assert lines == [
        "::error file=submissions/a%2Cb%3Ac/manifest.json,title=refused::"
        "50%25%0A::error::forged%0D\\x1b[31m"
    ]


def test_json_counts_what_is_refused() -> None:
    verdicts = [
        Verdict("a", "refused", ("why",)),
        Verdict("b", "recomputed", (), (Flag("kind", "text"),)),
    ]

    found = json.loads(json.dumps(as_json(verdicts)))

    assert found["refused"] == 1
    assert found["verdicts"][1]["flags"] == [{"kind": "kind", "text": "text"}]
