"""The record of a probe, as stored in the mastery table's Parquet schema."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sftknow_eval.errors import MasteryError

FORMAT = "sftknow-mastery/1"
_KEY = b"sftknow"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMeta:
    """What was probed, and how: everything that determines the table.

    Attributes:
        base: the model as it was named, with the `revision` asked for.
        fingerprint: of the base's weights (`models.weight_fingerprint`).
        data: name of the data set.
        facts_digest: of the facts in the table (ids, questions and accepted answers).
        templates_digest: of the completion templates.
        rule: the judge's rule.
        answer_stop: whether generation could end once an alias had appeared.
        selection: which facts were asked for: splits, relations, limit.
        engine: what drew the samples: engine, versions, dtype, arguments.
    """

    base: str
    revision: str | None
    fingerprint: str
    data: str
    facts_digest: str
    templates_digest: str
    n_templates: int
    samples_per_template: int
    temperature: float
    max_tokens: int
    seed: int
    rule: str = "contains"
    answer_stop: bool = False
    selection: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Return the number of samples per fact over all templates."""
        return self.n_templates * self.samples_per_template

    @property
    def verdict_bytes(self) -> int:
        """Return the bytes that hold one fact's verdicts, one bit a sample."""
        return -(-self.n_samples // 8)


def table_schema(meta: TableMeta) -> Any:
    """Return the Arrow schema of a mastery table, with `meta` in it as canonical JSON."""
    record = json.dumps(
        {"format": FORMAT, **dataclasses.asdict(meta)},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    columns = [
        ("fact_id", pa.string()),
        ("fact_digest", pa.binary(8)),
        ("relation", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("n_correct", pa.int32()),
        ("n_samples", pa.int32()),
        ("verdicts", pa.binary(meta.verdict_bytes)),
        ("stratum", pa.int8()),
    ]
    return pa.schema([pa.field(*column, nullable=False) for column in columns], {_KEY: record})


def read_meta(file: Path, schema: Any) -> TableMeta:
    """Return the record in a schema; `file` is named in errors.

    Raises:
        MasteryError: the schema is not that of a mastery table, or of another format version.
    """
    text = (schema.metadata or {}).get(_KEY)
    try:
        record = json.loads(text) if text else {}
    except ValueError:
        record = {}
    found = record.pop("format", None) if isinstance(record, dict) else None
    if found is None:
        raise MasteryError(
            f"{file} is a Parquet file but not a mastery table: it lacks the record of a probe. "
            "'sftknow probe BASE --out DIR' makes one."
        )
    if found != FORMAT:
        raise MasteryError(
            f"{file} has the format '{found}'; this version of sftknow reads '{FORMAT}'. Use the "
            "version that wrote it, or make the table anew with 'sftknow probe'."
        )
    try:
        return TableMeta(**record)
    except TypeError as error:
        raise MasteryError(f"{file}: the record of the probe is malformed: {error}") from error
