"""Exports hold the numbers of the board, and the shapes that others published."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import jsonschema
import yaml
from board_making import RESTORED, ROW
from huggingface_hub import EvalResultEntry
from huggingface_hub._eval_results import parse_eval_result_entries

from sftknow_eval.leaderboard.columns import COLUMNS
from sftknow_eval.leaderboard.site.build import Built
from sftknow_eval.leaderboard.site.exports import (
    EVERY_EVAL_EVER,
    csv_rows,
    csv_tail,
    csv_text,
)
from sftknow_eval.leaderboard.site.names import row_slug
from sftknow_eval.leaderboard.site.paper import STATUS, read_tables, reported

# The schema of the package every-eval-ever, which wants a newer Python than this project.
SCHEMA = Path(__file__).parent / f"every_eval_ever-{EVERY_EVAL_EVER}" / "eval.schema.json"


def test_every_eval_ever_records_fit_the_published_schema(built: Built) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    records = json.loads((built.site / "exports/every_eval_ever.json").read_text("utf-8"))
    submitted = [row for row in built.board.rows().values() if row.manifest]
    assert len(records) == len(submitted)
    validator = jsonschema.Draft7Validator(schema)
    for record in records:
        validator.validate(record)
    by_row = {r["source_metadata"]["additional_details"]["row"]: r for r in records}
    scores = {
        r["evaluation_name"]: r["score_details"]["score"] for r in by_row[ROW]["evaluation_results"]
    }
    measures = built.board.rows()[ROW].measures
    assert scores == {f"sftknow_{k}": measures[k].value for k in ("id", "ood", "lost", "gained")}


def test_eval_results_are_read_by_the_hub_s_own_package(built: Built) -> None:
    path = built.site / "rows" / row_slug(ROW) / "eval_results.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert all(isinstance(entry, EvalResultEntry) for entry in entries)
    value = built.board.rows()[ROW].measures["id"].value
    assert value is not None
    assert entries[0].task_id == "sftknow_id"
    assert entries[0].value == round(100 * value, 4)
    assert entries[0].source_url is not None
    assert entries[0].source_url.startswith("https://board.example.org/rows/")


def test_csv_and_json_hold_every_row_and_column(built: Built) -> None:
    text = (built.site / "exports/board.csv").read_text(encoding="utf-8")
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(text))}
    found = json.loads((built.site / "exports/board.json").read_text(encoding="utf-8"))
    in_json = {row["id"]: row for table in found["tables"] for row in table["rows"]}
    assert [column["key"] for column in found["columns"]] == [c.key for c in COLUMNS]
    for row in built.board.rows().values():
        for column in COLUMNS:
            value = row.measures[column.key].value
            assert rows[row.id][column.key] == ("" if value is None else repr(value))
            assert in_json[row.id]["measures"].get(column.key, {}).get("value") == value
        assert in_json[row.id]["tier"] == row.tier


def test_what_was_not_measured_is_absent_and_not_zero(built: Built) -> None:
    text = (built.site / "exports/board.csv").read_text(encoding="utf-8")
    row = next(row for row in csv.DictReader(io.StringIO(text)) if row["row"] == ROW)
    assert row["token_drift"] == ""
    assert row["restored_share"] == ""
    restored = built.board.rows()[RESTORED].measures["restored_share"].value
    assert restored is not None
    assert abs(restored - 0.2) < 0.01  # the row's recipes restore 20%


def test_spreadsheets_take_no_text_for_a_formula(built: Built) -> None:
    table = built.board.tables[0]
    row = dataclasses.replace(table.rows[0], title='=HYPERLINK("https://example.org")')
    lines = csv_rows(dataclasses.replace(table, rows=(row,)), {row.id: csv_tail(row)})
    text = csv_text([lines])
    assert next(csv.DictReader(io.StringIO(text)))["title"].startswith("'=")


def test_the_paper_s_rows_are_marked_as_reported(built: Built) -> None:
    text = (built.site / "exports/paper.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["status"] for row in rows} == {STATUS} == {"reported, not recomputed"}
    best = next(row for row in rows if row["row"] == "Parameter restoration")
    assert (best["id"], best["ood"]) == ("62.21", "57.1")  # Table 7 of the paper
    assert len(rows) == len(list(reported(read_tables())))
    page = (built.site / "paper.html").read_text(encoding="utf-8")
    assert page.count("reported, not recomputed") > 5
    board = json.loads((built.site / "exports/board.json").read_text(encoding="utf-8"))
    assert "Parameter restoration" not in json.dumps(board)
