"""`sftknow facts` as a user types it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_calls import Sftknow


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


def test_the_four_counts_of_the_real_archive_are_printed(
    sftknow: Sftknow, real_archive: Path
) -> None:
    called = sftknow("facts", "--data", real_archive)
    assert (called.code, called.err) == (0, "")
    # Tables 1 and 8, and the dev split.
    assert "75,944 ID train + 9,580 ID dev + 9,555 ID test + 11,613 OOD test" in called.out
    assert "Probed: 106,692 facts" in called.out


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_a_terminal_and_break_no_name(width: int, real_archive: Path) -> None:
    command = [sys.executable, "-m", "sftknow_eval", "facts", "--data", str(real_archive)]
    environment = {**os.environ, "COLUMNS": str(width)}
    printed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    lines = printed.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in printed
    # 24 relations x 3 splits, 2 domains x 3 splits and the sum: no row takes two lines.
    assert len([line for line in lines if re.search(r"(?: +[\d,]+| +-){4,}\s*$", line)]) == 79


def test_every_row_is_counted(sftknow: Sftknow, small_data: Path) -> None:
    called = sftknow("facts", "--data", small_data, "--json")
    printed = json.loads(called.out)
    assert printed["probed"] == {"ID train": 10, "ID dev": 10, "ID test": 10, "OOD test": 5}
    assert len(printed["rows"]) == 9
    for row in printed["rows"]:
        assert row["read"] == row["kept"] + sum(row["dropped"].values())
    assert printed["relations"] == str(small_data / "relations.yaml")
    assert printed["unlisted"] == []
    shown = sftknow("facts", "--data", small_data).out
    # By hand: 17 rows a split, of which 15 are kept, one repeats and one has two answers.
    total = next(line for line in shown.splitlines() if line.startswith(" all"))
    assert total.split() == ["all", "51", "45", "3", "3", "35"]


def test_other_relations_and_aliases_are_used_and_what_is_left_out_is_said(
    sftknow: Sftknow, small_data: Path, tmp_path: Path
) -> None:
    relations = tmp_path / "list.yaml"
    relations.write_text(
        "P19: {label: '[b]birth', domain: ood, question: 'Where was {subject} born?'}\n"
    )
    aliases = tmp_path / "forms.json"
    aliases.write_text("{}")
    options = ("--data", small_data, "--relations-file", relations, "--aliases", aliases)
    called = sftknow("facts", *options)
    assert called.code == 0
    assert "P19 [b]birth" in called.out  # a label is text, not markup
    assert "Probed: 5 facts" in called.out  # out of domain: the test split only
    assert "not used: P106, P20" in called.out
    assert str(relations) in called.out
    assert json.loads(sftknow("facts", *options, "--json").out)["unlisted"] == ["P106", "P20"]


def test_the_environment_names_the_data(
    sftknow: Sftknow, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTKNOW_DATA", str(small_data))
    assert json.loads(sftknow("facts", "--json").out)["source"] == str(small_data)


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda d: shutil.rmtree(d), "does not exist"),
        (lambda d: shutil.rmtree(d / "dataset" / "dev"), "the split dev is missing"),
        (lambda d: (d / "relations.yaml").write_text("P19: {domain: in}"), "label and question"),
        (lambda d: (d / "aliases.json").write_text('{"A": [""]}'), "'A': alias '' is empty"),
        (
            lambda d: (d / "dataset" / "test" / "P19.test.json").write_text("[{}]"),
            "P19.test.json, row 0: question is missing",
        ),
    ],
)
def test_bad_input_is_one_clear_message_and_code_2(  # type: ignore[no-untyped-def]
    sftknow: Sftknow, small_data: Path, tmp_path: Path, break_it, named: str, as_json
) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    break_it(source)
    called = sftknow("facts", "--data", source, *as_json)
    assert called.code == 2
    assert called.out == ""
    assert called.err.startswith("Error: ")
    assert named in " ".join(called.err.split())
    assert "Traceback" not in called.err
