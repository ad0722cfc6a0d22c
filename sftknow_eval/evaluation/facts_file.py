"""Outcomes as Parquet: one model's in the cache; base and fine-tune beside it in the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import DataError, SettingsError
from sftknow_eval.evaluation.compare import transition
from sftknow_eval.evaluation.results import VERDICTS, Outcome

FACTS_NAME = "facts.parquet"

_FACT = {
    "fact_id": pa.string(),
    "relation": pa.string(),
    "domain": pa.string(),
    "stratum": pa.int8(),
}
# Absent from files of before it was kept.
_SUBJECT = {"subject": pa.string()}
_MODEL = {
    "prompt": pa.string(),
    "output": pa.string(),
    **dict.fromkeys(VERDICTS, pa.bool_()),
    "token_f1": pa.float64(),
}


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one model's outcomes, atomically."""
    schema = pa.schema(list((_FACT | _SUBJECT | _MODEL).items()))
    rows = [_fact(outcome) | _answer(outcome) for outcome in outcomes]
    _write(path, pa.Table.from_pylist(rows, schema=schema))


def write_facts(
    path: Path, finetuned: Sequence[Outcome], base: Sequence[Outcome] | None = None
) -> None:
    """Write the outcomes of a fine-tune, and beside them those of its base, atomically.

    Columns of a model carry its name: `finetuned_output`, `base_output`, ...; `transition` is
    what became of the fact.
    """
    before = {outcome.fact_id: outcome for outcome in base or ()}
    rows = []
    for outcome in finetuned:
        row = _fact(outcome) | _answer(outcome, "finetuned_")
        if known := before.get(outcome.fact_id):
            row |= _answer(known, "base_")
            row["transition"] = transition(known.recalled, outcome.recalled)
        rows.append(row)
    models = ["finetuned_"] if base is None else ["base_", "finetuned_"]
    columns = {f"{model}{name}": kind for model in models for name, kind in _MODEL.items()}
    columns |= {} if base is None else {"transition": pa.string()}
    _write(
        path,
        pa.Table.from_pylist(rows, schema=pa.schema(list((_FACT | _SUBJECT | columns).items()))),
    )


def read_outcomes(path: Path, model: str = "") -> list[Outcome]:
    """Return the outcomes in a file; from `facts.parquet`, those of `finetuned` or `base`.

    Raises:
        DataError: the file is missing or not readable.
        SettingsError: it holds no outcomes of that model.
    """
    path = path / FACTS_NAME if path.is_dir() else path
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not readable as outcomes of facts: {error}") from error
    prefix = f"{model}_" if model else ""
    if missing := [name for name in _FACT if name not in table.schema.names]:
        raise SettingsError(f"{path} holds no outcomes: it lacks {', '.join(missing)}.")
    if f"{prefix}output" not in table.schema.names:
        raise SettingsError(
            f"{path} holds no outcomes of the {model or 'one'} model; its columns are "
            f"{', '.join(table.schema.names)}."
        )
    return [_outcome(row, prefix) for row in table.to_pylist()]


def _write(path: Path, table: Any) -> None:
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _fact(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in _FACT | _SUBJECT}


def _answer(outcome: Outcome, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {"prompt": outcome.prompt, "output": outcome.output}
    values |= {**outcome.correct, "token_f1": outcome.token_f1}
    return {f"{prefix}{name}": value for name, value in values.items()}


def _outcome(row: dict[str, Any], prefix: str) -> Outcome:
    return Outcome(
        **{name: row[name] for name in _FACT},
        prompt=row[f"{prefix}prompt"],
        output=row[f"{prefix}output"],
        correct={name: row[f"{prefix}{name}"] for name in VERDICTS},
        token_f1=row[f"{prefix}token_f1"],
        subject=row.get("subject", ""),
    )
