"""The board as files for other programs: CSV, JSON, Every Eval Ever, Hugging Face.

Numbers are those of the pages, unrounded. What was not measured is absent, never 0.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sftknow_eval import __version__
from sftknow_eval.leaderboard.columns import BY_KEY, COLUMNS
from sftknow_eval.leaderboard.rows import Board, Measure, RankingTable, Row

FORMAT = "sftknow-board/1"
RowTexts = Mapping[str, str]
EVERY_EVAL_EVER = "0.3.0"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(tables: Sequence[str]) -> str:
    """Return tables, each as of `csv_rows`, as one CSV file."""
    bounds = [f"{c.key}{end}" for c in COLUMNS for end in ("", "_low", "_high")]
    head = ["benchmark", "base", "regime", "row", "title", "status", "control", "tier", "tier_ood"]
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([*head, "pareto", "not_ranked", "flags", *bounds])
    return target.getvalue() + "".join(tables)


def csv_rows(table: RankingTable, tails: Mapping[str, str]) -> str:
    """Return rows as lines of CSV: a value, a lower and an upper bound for every column.

    Args:
        table: of the board.
        tails: the last columns of each row by its id, as `csv_tail` gives them.
    """
    return "".join(
        _csv_line(
            *(table.version, table.base, table.regime, row.id, row.title, row.status),
            *(row.control or "", _known(row.tier), _known(row.tier_ood), str(row.pareto)),
        )
        + f",{tails[row.id]}\n"
        for row in table.rows
    )


def csv_tail(row: Row) -> str:
    """Return the columns of a row's line of CSV in which its place among others has no part."""
    found = [row.measures[column.key] for column in COLUMNS]
    numbers = [_known(v) for m in found for v in (m.value, m.low, m.high)]
    flags = "; ".join(flag.kind for flag in row.flags)
    return _csv_line("; ".join(row.not_ranked), flags, numbers=numbers)


def _csv_line(*texts: str, numbers: Sequence[str] = ()) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="").writerow([*map(_cell, texts), *numbers])
    return target.getvalue()


def board_text(board: Board, tables: Sequence[RankingTable], rows: RowTexts) -> str:
    """Return tables with what else there is to say as JSON, one row a line."""
    head = {
        "format": FORMAT,
        "made_by": f"sftknow-eval {__version__}",
        "columns": [dataclasses.asdict(column) for column in COLUMNS],
        "refused": [dataclasses.asdict(refused) for refused in board.refused],
        "withdrawn": [dataclasses.asdict(withdrawn) for withdrawn in board.withdrawn],
    }
    found = ",\n".join(table_text(table, rows) for table in tables)
    return f'{_json(head)[:-1]},\n"tables":[\n{found}\n]}}\n'


def table_text(table: RankingTable, rows: RowTexts) -> str:
    """Return one table as JSON."""
    head = {
        **{"benchmark": table.version, "base": table.base, "regime": table.regime},
        "missing_controls": list(table.missing_controls),
    }
    found = ",\n".join(
        f"{_json({'tier': row.tier, 'tier_ood': row.tier_ood, 'pareto': row.pareto})[:-1]},"
        f"{rows[row.id][1:]}"
        for row in table.rows
    )
    return f'{_json(head)[:-1]},"rows":[\n{found}\n]}}'


def row_text(row: Row) -> str:
    """Return as JSON what a row is by itself: without the places that it has among others."""
    return _json(
        {
            **{"id": row.id, "title": row.title, "status": row.status, "control": row.control},
            "not_ranked": list(row.not_ranked),
            "flags": [{"kind": flag.kind, "text": flag.text} for flag in row.flags],
            "measures": {k: _measure(m) for k, m in row.measures.items() if m.value is not None},
        }
    )


def every_eval_ever(row: Row) -> dict[str, Any]:
    """Return a row as one record of Every Eval Ever.

    Source: the schema of every-eval-ever 0.3.0 (MIT licence), against which the tests validate.
    """
    manifest = row.manifest
    assert manifest is not None, "only submitted rows are exported"
    stamp = f"{manifest.created}T00:00:00Z"
    epoch = int(_midnight(manifest.created))
    results = [
        _result(key, row.measures[key], manifest.base.id)
        for key in ("id", "ood", "lost", "gained")
        if row.measures[key].value is not None
    ]
    return {
        "schema_version": EVERY_EVAL_EVER,
        "evaluation_id": f"sftknow/{row.id.replace('/', '_')}/{epoch}",
        "evaluation_timestamp": stamp,
        "retrieved_timestamp": str(epoch),
        "source_metadata": {
            "source_name": "sftknow-eval leaderboard",
            "source_type": "evaluation_run",
            "source_organization_name": manifest.contact,
            "evaluator_relationship": "first_party",
            "additional_details": {"status": row.status, "row": row.id},
        },
        "eval_library": {"name": "sftknow-eval", "version": manifest.sftknow},
        "model_info": {
            "name": row.title,
            "id": manifest.seeds[0].weights.name,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                "base": manifest.base.name,
                "base_fingerprint": manifest.base.fingerprint,
                "weights_fingerprint": manifest.seeds[0].weights.fingerprint,
                "strategy": manifest.strategy,
                "regime": manifest.regime.key,
            },
        },
        "evaluation_results": results,
    }


def eval_results(row: Row, dataset: str, source: str | None = None) -> list[dict[str, Any]]:
    """Return a row as entries of a model repository's `.eval_results/*.yaml`.

    Args:
        row: a submitted row.
        dataset: id of the benchmark's dataset on the Hub.
        source: address of the row's page, if it is public.

    Source: huggingface_hub's `EvalResultEntry`, which writes and reads that format.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    assert row.manifest is not None, "only submitted rows are exported"
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"sftknow_{key}",
            value=round(100 * value, 4),
            date=str(row.manifest.created),
            source_url=source,
            source_name="sftknow-eval leaderboard" if source else None,
            notes=f"{BY_KEY[key].meaning} Percent. Base {row.manifest.base.id}, {row.status}.",
        )
        for key in ("id", "ood")
        if (value := row.measures[key].value) is not None
    ]
    return eval_result_entries_to_yaml(entries)


def _result(key: str, found: Measure, base: str) -> dict[str, Any]:
    column = BY_KEY[key]
    score: dict[str, Any] = {"score": found.value}
    if found.low is not None and found.high is not None:
        interval: dict[str, Any] = {
            "lower": found.low,
            "upper": found.high,
            "confidence_level": 0.95,
        }
        interval |= {"method": found.method} if found.method else {}
        score["uncertainty"] = {"confidence_interval": interval}
    return {
        "evaluation_name": f"sftknow_{key}",
        "source_data": {
            "dataset_name": f"facts of {base}, test split",
            "source_type": "other",
        },
        "metric_config": {
            "evaluation_description": column.meaning,
            "metric_id": f"sftknow_{key}",
            "metric_name": column.label,
            "metric_kind": "accuracy" if key in ("id", "ood") else "rate",
            "metric_unit": "proportion",
            "lower_is_better": column.better == "low",
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": score,
        "generation_config": {
            "generation_args": {"temperature": 0.0, "max_tokens": 16},
        },
    }


def _measure(found: Measure) -> dict[str, Any]:
    return {
        **{"value": found.value, "low": found.low, "high": found.high},
        **{"seeds": list(found.seeds), "sd": found.sd, "method": found.method},
    }


def _known(value: float | None) -> str:
    return "" if value is None else repr(value)


def _cell(text: str) -> str:
    """Return a text that spreadsheets do not take for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _midnight(day: Any) -> float:
    import datetime

    return datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp()


def record_text(row: Row) -> str:
    """Return a row as a record of Every Eval Ever, on one line."""
    return _json(every_eval_ever(row))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
