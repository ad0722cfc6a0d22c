"""`sftknow facts` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REAL_ARCHIVE

from sftknow_eval.cli.app import main


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["sftknow", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.skipif(not REAL_ARCHIVE.is_file(), reason="the EntityQuestions archive is not here")
def test_the_four_counts_of_the_real_archive_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "facts", "--data", REAL_ARCHIVE) == 0
    printed = capsys.readouterr().out
    # Tables 1 and 8, and the dev split.
    for count in ("75,944", "9,555", "11,613", "9,580"):
        assert count in printed


def test_json_counts_every_row(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "facts", "--data", small_data, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["probed"] == {"ID train": 10, "ID dev": 10, "ID test": 10, "OOD test": 5}
    for row in printed["rows"]:
        assert row["read"] == row["kept"] + sum(row["dropped"].values())


def test_a_missing_archive_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "facts", "--data", tmp_path / "none.zip") == 2
    printed = capsys.readouterr().err
    assert "none.zip does not exist" in " ".join(printed.split())
    assert "Traceback" not in printed
