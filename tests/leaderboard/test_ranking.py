"""Boards: who is compared with whom, tiers, controls, status, cache."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from board_making import DECLARATION, OTHER, RANDOM, RESTORED, ROW, World
from forging import edit, row_folder

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.columns import COLUMNS
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.intake import Naming, submit
from sftknow_eval.leaderboard.ranking import board
from sftknow_eval.leaderboard.reproductions import record_path
from sftknow_eval.leaderboard.rows import Board, Row
from sftknow_eval.leaderboard.withdrawn import withdraw


@pytest.fixture(scope="module")
def built(honest_board: Path) -> Board:
    return board(honest_board)


def test_one_table_for_one_version_base_and_regime(built: Board) -> None:
    tables = [(table.version, table.base, table.regime) for table in built.tables]

    assert tables == [("1", "the-base", "s0-n24")]


def test_a_clearly_better_row_stands_in_a_higher_tier(built: Board) -> None:
    rows = built.rows()

    assert rows[OTHER].tier == 1
    assert (rows[ROW].tier or 0) > 1
    assert rows[OTHER].pareto


def test_controls_stand_on_the_board_and_have_no_tier(built: Board) -> None:
    controls = {row.control: row for row in built.tables[0].rows if row.control}

    assert set(controls) == {"random_restoration", "base", "base_again"}
    assert all(row.tier is None for row in controls.values())
    assert built.tables[0].missing_controls == ()
    assert controls["base"].measures["lost"].value == 0.0


def test_every_row_has_every_column(built: Board) -> None:
    for row in built.rows().values():
        assert set(row.measures) == {column.key for column in COLUMNS}


# `results` draws answers that are right with these shares of each stratum.
def test_measures_are_near_the_drawn_shares(built: Board) -> None:
    measures = built.rows()[ROW].measures

    assert measures["id"].value == pytest.approx(0.5, abs=0.08)
    assert measures["restored_share"].value is None
    assert built.rows()[RESTORED].measures["restored_share"].value == pytest.approx(0.2, abs=1e-3)
    assert measures["trained_parameters"].value == 1000


def test_fewer_than_three_seeds_are_shown_and_not_ranked(board_copy: Path) -> None:
    folder = row_folder(board_copy)
    edit(folder, lambda m: m.update(seeds=m["seeds"][:2]))
    for name in ("evidence/seed-2.parquet", "training/seed-2.jsonl"):
        (folder / name).unlink()

    row = board(board_copy).rows()[ROW]

    assert row.not_ranked == ("2 of at least 3 seeds",)
    assert row.status == "recomputed"


def test_a_row_without_evidence_is_reported_only(
    board_world: World, honest_board: Path, tmp_path: Path
) -> None:
    import dataclasses

    root = tmp_path / "leaderboard"
    results = [board_world.folder / "results" / f"weak-{seed}" for seed in range(3)]
    naming = Naming(mastery=board_world.table_file, data=board_world.data, base_name="the base")
    submit(results, root, dataclasses.replace(DECLARATION, evidence=False), naming)

    row = board(root).rows()[ROW]

    assert row.status == "self_reported"
    assert "reported only, without evidence" in row.not_ranked
    assert row.measures["id"].value == pytest.approx(
        board(honest_board).rows()[ROW].measures["id"].value
    )


def test_a_withdrawn_row_stays_with_its_reason(board_copy: Path) -> None:
    withdraw(board_copy, ROW, "its seeds were chosen", "@maintainer", datetime.date(2026, 1, 2))

    found = board(board_copy)

    assert found.rows()[ROW].status == "withdrawn"
    assert "withdrawn" in found.rows()[ROW].not_ranked
    assert found.withdrawn[0].reason == "its seeds were chosen"
    assert "its seeds were chosen" in (board_copy / "withdrawn.md").read_text()
    with pytest.raises(SubmissionError, match="withdrawn already"):
        withdraw(board_copy, ROW, "again", "@maintainer", datetime.date(2026, 1, 2))


def _record(root: Path, shift: int) -> None:
    manifest = row_folder(root) / "manifest.json"
    value = json.loads(manifest.read_text())
    seeds = []
    for run in value["seeds"]:
        counts = run["counts"]
        counts["id"][0]["n_correct"] += shift
        seed = {"seed": run["seed"], "weights": "a" * 64, "outputs": run["outputs"]}
        seeds.append({**seed, "counts": counts})
    record = {
        "row": ROW,
        "manifest": sha256(manifest.read_bytes()),
        "by": "@maintainer",
        "date": "2026-01-02",
        "seeds": seeds,
        "same_outputs": 0,
        "versions": {},
    }
    path = record_path(root, ROW)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))


# One fact of 24 in one of five strata is 0.8 points of the mean; the bound is 2 points.
@pytest.mark.parametrize(
    ("shift", "status"), [(0, "reproduced"), (2, "reproduced"), (4, "recomputed")]
)
def test_a_record_that_agrees_makes_a_row_reproduced(
    board_copy: Path, shift: int, status: str
) -> None:
    _record(board_copy, shift)

    assert board(board_copy).rows()[ROW].status == status


def test_a_record_of_another_manifest_counts_for_nothing(board_copy: Path) -> None:
    _record(board_copy, 0)
    edit(row_folder(board_copy), lambda m: m.update(title="another title"))

    assert board(board_copy).rows()[ROW].status == "recomputed"


def _numbers(row: Row) -> tuple[object, ...]:
    return (row.status, row.tier, row.tier_ood, row.pareto, dict(row.measures), row.flags)


def test_a_board_from_the_cache_is_the_same(board_copy: Path, tmp_path: Path) -> None:
    first = board(board_copy, tmp_path / "cache")
    second = board(board_copy, tmp_path / "cache")

    assert {k: _numbers(row) for k, row in second.rows().items()} == {
        k: _numbers(row) for k, row in first.rows().items()
    }
    for name, row in first.rows().items():
        _same_contents(second.rows()[name], row)


def _same_contents(row: Row, other: Row) -> None:
    assert (row.entry, row.manifest) == (other.entry, other.manifest)
    assert row.contents().restored == other.contents().restored
    np.testing.assert_array_equal(row.asked, other.asked)
    np.testing.assert_array_equal(row.correct, other.correct)


# There are as many ID facts as OOD: what a row was asked does not follow from how many.
def test_a_row_of_one_domain_is_the_same_from_the_cache(random_model: Path, tmp_path: Path) -> None:
    world = World.make(tmp_path / "world", random_model, leave_out=("P20",))
    root = tmp_path / "leaderboard"
    world.submit_row(root, [world.results("whole", 0)], run="whole")
    world.submit_row(root, [world.results("half", seed, domain="ood") for seed in range(3)])

    first = board(root, tmp_path / "cache").rows()[ROW]
    second = board(root, tmp_path / "cache").rows()[ROW]

    _same_contents(second, first)
    assert first.asked.tolist() == board(root).bases["the-base"].positions("ood").tolist()
    assert first.measures["id"].value is None
    assert _numbers(second) == _numbers(first)


def test_the_cache_does_not_hide_a_change(board_copy: Path, tmp_path: Path) -> None:
    board(board_copy, tmp_path / "cache")
    other = row_folder(board_copy, OTHER) / "evidence/seed-0.parquet"
    shutil.copyfile(other, row_folder(board_copy) / "evidence/seed-0.parquet")

    found = board(board_copy, tmp_path / "cache")

    # The restorations say that they are made from this row's weights, and stand by themselves.
    assert [entry.path for entry in found.refused] == [ROW]
    assert RANDOM in found.rows()
