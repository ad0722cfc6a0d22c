"""The report of a real study: every table of the paper has its counterpart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_world import World

from sftknow_eval.errors import DataError
from sftknow_eval.report.study_report import study_report


@pytest.fixture(scope="module")
def found(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """report.json of the small study."""
    out = tmp_path_factory.mktemp("study-report")
    assert study_report(world.study, out) == out / "index.html"
    return {
        "json": json.loads((out / "report.json").read_text()),
        "html": (out / "index.html").read_text(),
        "markdown": (out / "report.md").read_text(),
    }


def test_each_table_of_the_paper_has_its_counterpart(found: dict[str, Any]) -> None:
    names = set(found["json"]["tables"])
    wanted = {f"table-{n}" for n in (1, 3, 5, 6, 7, 9, 10, 11)}
    wanted |= {f"table-{n}-{domain}" for n in ("2-0", "4") for domain in ("id", "ood")}
    assert wanted | {"table-8-paper", "null-row", "findings"} <= names


def test_measured_values_stand_beside_the_papers(found: dict[str, Any], world: World) -> None:
    table = found["json"]["tables"]["table-4-id"]
    row = next(row for row in table["rows"] if row[0] == "24 facts of stratum 0")
    sweep = world.study / "runs/sft_divided-s0-n24-d0/sweep/test/sweep.json"
    points = json.loads(sweep.read_text())["points"]
    value = points[0]["scores"]["id"]["alias_acc"]["mean"]["value"]
    # 44.96: Table 4, 1,920 facts of stratum 0 with nothing restored.
    assert row[1].startswith(f"{100 * value:.1f} (")
    assert row[1].endswith("; paper 45.0)")
    assert row[2] == "\N{EN DASH} (paper 46.7)"  # 1% was not in this study's sweep


def test_what_was_not_measured_is_said(found: dict[str, Any]) -> None:
    drift = next(f for f in found["json"]["findings"] if f["id"] == "token-drift")
    assert drift["effects"]
    assert {effect["verdict"] for effect in drift["effects"]} == {"cannot tell"}
    assert all(effect["value"] is None and effect["why"] for effect in drift["effects"])


def test_cells_that_were_left_out_are_named(found: dict[str, Any]) -> None:
    # The tiny world has fewer than 24 train facts of stratum 2.
    rows = found["json"]["tables"]["left-out"]["rows"]
    assert [row[:2] for row in rows] == [
        ["sft_divided-s2-n24-d0", "left out"],
        ["sft_divided-s2-n24-d1", "left out"],
    ]


def test_verdicts_agree_with_their_intervals(found: dict[str, Any]) -> None:
    effects = [e for finding in found["json"]["findings"] for e in finding["effects"]]
    assert any(effect["value"] is not None for effect in effects)
    for effect in effects:
        if effect["verdict"] == "shown":
            assert effect["sign"] * effect["low"] > 0
            assert effect["sign"] * effect["high"] > 0


def test_the_page_says_that_a_mini_world_is_no_evidence(found: dict[str, Any]) -> None:
    assert "no evidence about large models" in found["html"]
    assert "no evidence about large models" in found["markdown"]


def test_a_folder_without_a_study_is_refused(tmp_path: Path, world: World) -> None:
    with pytest.raises(DataError, match="does not exist"):
        study_report(tmp_path, tmp_path / "out")
    shutil.copy(world.study / "study.json", tmp_path / "study.json")
    record = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(record | {"format": "sftknow-study/9"}))
    with pytest.raises(DataError, match="expected 'sftknow-study/1'"):
        study_report(tmp_path, tmp_path / "out")
