"""The report of a real study: every table of the paper has its counterpart."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
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
    wanted |= {f"table-{n}-{domain}" for n in ("2", "4") for domain in ("id", "ood")}
    assert wanted | {"table-8-paper", "null-row", "findings"} <= names


def test_each_base_has_its_own_table_and_figures(world: World, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(world.study, root)
    # The same runs once more, as those of a second base.
    record = json.loads((root / "study.json").read_text())
    record["bases"].append({**record["bases"][0], "id": "second", "name": "the other base"})
    record["runs"] += [
        {**run, "id": f"second-{run['id']}", "base": "second"} for run in record["runs"]
    ]
    (root / "study.json").write_text(json.dumps(record))
    comparison = json.loads((root / record["comparison"]).read_text())
    comparison["seeds"] += [{**entry, "base": "second"} for entry in comparison["seeds"]]
    (root / record["comparison"]).write_text(json.dumps(comparison))

    page = study_report(root, tmp_path / "report").read_text()

    tables = json.loads((tmp_path / "report" / "report.json").read_text())["tables"]
    # Beside the paper's second base, so that the paper's figures are others.
    both = [tables[f"table-2{of}-id"]["rows"] for of in ("", "-second")]
    one, other = ([re.sub("; paper.*", "", str(cell)) for cell in rows[0]] for rows in both)
    assert one == other
    assert both[0] != both[1]
    assert tables["table-2-second-id"]["caption"].endswith("in-domain, the other base")
    assert tables["table-2-id"]["caption"].endswith(f", {record['bases'][0]['name']}")
    assert 'id="sizes-id"' in page
    assert 'id="sizes-second-id"' in page


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
            # Beyond zero; where the paper has something kept, beyond the fall that is let pass.
            least = -effect["margin"] if effect["margin"] is not None else 0
            assert effect["sign"] * effect["low"] > least
            assert effect["sign"] * effect["high"] > least


def test_each_table_with_an_effect_has_a_verdict(found: dict[str, Any]) -> None:
    sources = " ".join(finding["source"] for finding in found["json"]["findings"])
    assert {int(n) for n in re.findall(r"Table (\d+)", sources)} == {2, 3, 4, 5, 6, 7, 9, 10, 11}
    rows = found["json"]["tables"]["findings"]["rows"]
    assert {row[1].split(",")[0].rstrip(" 0123456789") for row in rows} <= {
        *("shown", "not shown", "cannot tell")
    }


def _effects(found: dict[str, Any], ident: str) -> list[dict[str, Any]]:
    (finding,) = (f for f in found["json"]["findings"] if f["id"] == ident)
    effects: list[dict[str, Any]] = finding["effects"]
    return effects


def test_other_tasks_are_set_beside_nothing_given_back(found: dict[str, Any], world: World) -> None:
    sweep = json.loads((world.study / "other/echo/sweep/sweep.json").read_text())
    scores = {p["ratio"]: p["tasks"]["sftknow_echo"]["exact_match,answer"] for p in sweep["points"]}
    effect = next(e for e in _effects(found, "other-tasks") if ": 60% beside 0%" in e["what"])
    assert effect["value"] == pytest.approx(scores[60.0]["value"] - scores[0.0]["value"])
    error = (scores[60.0]["stderr"] ** 2 + scores[0.0]["stderr"] ** 2) ** 0.5
    assert effect["high"] - effect["value"] == pytest.approx(1.96 * error)
    assert effect["paper"] == pytest.approx(-0.5769)  # GSM8K, Table 5


def test_own_facts_are_paired_over_what_is_given_back(found: dict[str, Any], world: World) -> None:
    folder = world.study / "runs/sft_divided-s0-n24-d0/sweep/train"
    after, before = (
        sum(pq.read_table(folder / f"ratio-{at}/facts.parquet")["finetuned_alias_acc"].to_pylist())
        for at in (20, 0)
    )
    effects = {e["what"]: e for e in _effects(found, "own-facts")}
    effect = effects["24 facts of stratum 0: 20% beside 0%: kept"]
    assert effect["value"] == pytest.approx((after - before) / 24)
    assert effect["low"] < effect["value"] < effect["high"]
    # 5% was not in this study's sweep.
    missing = effects["24 facts of stratum 0: 5% beside 0%: kept"]
    assert (missing["value"], missing["verdict"]) == (None, "cannot tell")


def test_whole_layers_stand_for_the_papers_first_and_last(found: dict[str, Any]) -> None:
    effects = _effects(found, "layer-ranges")
    first, last = effects[:2]
    assert first["what"] == "24 facts of stratum 0, first layers (0): falls"
    assert first["paper"] == pytest.approx((9.83 - 55.33) / 100)  # Tables 11 and 4
    assert last["what"] == "24 facts of stratum 0, last layers (1): kept"
    assert last["paper"] == pytest.approx((57.60 - 55.33) / 100)
    assert all(effect["value"] is not None for effect in effects)


def test_shares_of_modules_beyond_their_size_add_up_to_nothing(found: dict[str, Any]) -> None:
    modules = _effects(found, "by-module")
    assert len(modules) == 7
    assert sum(effect["value"] for effect in modules) == pytest.approx(0, abs=1e-9)
    # The paper's shares add up to 99.99.
    assert sum(effect["paper"] for effect in modules) == pytest.approx(0, abs=2e-4)
    (layers,) = _effects(found, "by-layer")
    assert layers["paper"] == pytest.approx(0.0154, abs=1e-4)  # Table 9: 51.53 of 99.99
    top = [e for e in _effects(found, "concentration") if e["value"] is not None]
    assert all(0 < effect["value"] + 0.5 <= 1 for effect in top)


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
