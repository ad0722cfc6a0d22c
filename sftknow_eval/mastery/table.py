"""The mastery table: how often each fact was recalled, and which stratum that makes.

One Parquet file, one row a fact, counts and verdicts only: R_k and the strata follow from
the counts by integer comparison, so nothing depends on how a ratio was rounded. The file
holds no time stamps: the same probe gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import MasteryError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table_meta import FORMAT, TableMeta, read_meta, table_schema

__all__ = [
    "N_STRATA",
    "TABLE_NAME",
    "BestTemplate",
    "MasteryTable",
    "TableMeta",
    "half",
    "pack_verdicts",
    "stratum",
]

N_STRATA = 5
TABLE_NAME = "mastery.parquet"

_ROW_GROUP = 16_384
_TEXT_COLUMNS = ("relation", "domain", "split")


def stratum(n_correct: int, n_samples: int) -> int:
    """Return the stratum (0 to 4) of a fact recalled `n_correct` times in `n_samples`.

    Stratum 0 is R_k = 0, stratum i in 1..4 is R_k in ((i-1)/4, i/4].

    Source: section 3.1, Table 1.
    """
    if not 0 <= n_correct <= n_samples or n_samples == 0:
        raise ValueError(f"{n_correct} correct of {n_samples} samples is impossible")
    return next(i for i in range(N_STRATA) if 4 * n_correct <= i * n_samples)


@dataclass(frozen=True, slots=True)
class BestTemplate:
    """The template that stands for a relation, and the evidence it was chosen on.

    Attributes:
        index: of the template; ties go to the lower index.
        how: `train` (chosen on the relation's train facts), `cross-fit` (on the other half of
            the relation's facts) or `first` (no other fact of the relation is in the table).
        n_correct: correct samples of that template among the facts it was chosen on.
        n_samples: samples of that template among them.
    """

    index: int
    how: str
    n_correct: int
    n_samples: int


def half(fact_digest: bytes) -> int:
    """Return the half (0 or 1) that a fact belongs to in cross-fitting: its last digest bit."""
    return fact_digest[-1] & 1


def pack_verdicts(verdicts: np.ndarray) -> np.ndarray:
    """Pack bool (facts, templates, samples) into uint8 (facts, bytes), little bit order."""
    return np.packbits(verdicts.reshape(len(verdicts), -1), axis=1, bitorder="little")


def _packed_column(packed: np.ndarray) -> Any:
    buffer = pa.py_buffer(np.ascontiguousarray(packed))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(packed.shape[1]), len(packed), [None, buffer]
    )


def _unpacked_column(column: Any, width: int) -> np.ndarray:
    views = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, width)[chunk.offset :][: len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(views) if views else np.empty((0, width), np.uint8)


def _counts_and_strata(packed: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    n_correct = np.bitwise_count(packed).sum(axis=1, dtype=np.int32)
    by_count = np.array([stratum(i, n_samples) for i in range(n_samples + 1)], np.int8)
    return n_correct, by_count[n_correct]


class MasteryTable:
    """Counts, verdicts and strata of the probed facts, with the record of the probe."""

    def __init__(self, rows: Any, meta: TableMeta) -> None:
        self.rows = rows
        self.meta = meta

    @classmethod
    def build(cls, facts: Sequence[Fact], packed: np.ndarray, meta: TableMeta) -> MasteryTable:
        """Make a table from facts and their packed verdicts, uint8 (facts, bytes)."""
        if packed.shape != (len(facts), meta.verdict_bytes):
            raise ValueError(
                f"verdicts of shape {packed.shape} do not fit {len(facts)} facts of "
                f"{meta.verdict_bytes} bytes"
            )
        n_correct, strata = _counts_and_strata(packed, meta.n_samples)
        digests = np.frombuffer(b"".join(f.digest() for f in facts), np.uint8).reshape(-1, 8)
        columns = [
            pa.array([fact.id for fact in facts], pa.string()),
            _packed_column(digests),
            *(pa.array([getattr(f, name) for f in facts], pa.string()) for name in _TEXT_COLUMNS),
            pa.array(n_correct),
            pa.array(np.full(len(facts), meta.n_samples, np.int32)),
            _packed_column(packed),
            pa.array(strata),
        ]
        return cls(pa.Table.from_arrays(columns, schema=table_schema(meta)), meta)

    @classmethod
    def read(cls, path: str | Path) -> MasteryTable:
        """Read a table from its file, or from the folder of a finished probe.

        Raises:
            MasteryError: the file is missing, not a mastery table, of another format version
                or inconsistent.
        """
        file = _table_file(Path(path))
        try:
            rows = pq.ParquetFile(file).read()
        except (OSError, pa.ArrowException) as error:
            raise MasteryError(f"{file} is not readable as a mastery table: {error}") from error
        meta = read_meta(file, rows.schema)
        if not rows.schema.equals(table_schema(meta)):
            raise MasteryError(
                f"{file} has the columns {rows.schema.names}; a mastery table of format {FORMAT} "
                f"has {table_schema(meta).names}, of the documented types. Make it anew with "
                "'sftknow probe'."
            )
        n_correct, strata = _counts_and_strata(
            _unpacked_column(rows["verdicts"], meta.verdict_bytes), meta.n_samples
        )
        table = cls(rows, meta)
        stored = (table.column("n_correct"), table.column("stratum"))
        if not (np.array_equal(stored[0], n_correct) and np.array_equal(stored[1], strata)):
            raise MasteryError(
                f"{file}: counts or strata do not follow from the stored verdicts; the file was "
                "changed after the probe. Make it anew with 'sftknow probe'."
            )
        return table

    def write(self, path: str | Path) -> None:
        """Write the table atomically; equal tables give equal bytes."""
        with atomic_path(Path(path)) as partial, partial.open("wb") as handle:
            pq.write_table(
                self.rows,
                handle,
                compression="zstd",
                row_group_size=_ROW_GROUP,
                use_dictionary=list(_TEXT_COLUMNS),
            )

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> np.ndarray:
        """Return a column as an array: numbers, or objects for text and bytes."""
        # By lists: `to_numpy` imports pandas, as `pq.read_table` does, a sixth of a second.
        column = self.rows[name]
        number = pa.types.is_integer(column.type)
        return np.array(column.to_pylist(), column.type.to_pandas_dtype() if number else object)

    def verdicts(self) -> np.ndarray:
        """Return every verdict as bool (facts, templates, samples)."""
        packed = _unpacked_column(self.rows["verdicts"], self.meta.verdict_bytes)
        bits = np.unpackbits(packed, axis=1, count=self.meta.n_samples, bitorder="little")
        shape = (len(self), self.meta.n_templates, self.meta.samples_per_template)
        return bits.view(bool).reshape(shape)

    def strata_of(self, facts: Iterable[Fact]) -> dict[str, int]:
        """Return the stratum by fact id of those facts that the table holds.

        Raises:
            MasteryError: the table holds none of them, or one of the same id and another
                question or other answers.
        """
        held = dict(
            zip(
                self.rows["fact_id"].to_pylist(),
                zip(self.rows["fact_digest"].to_pylist(), self.column("stratum"), strict=True),
                strict=True,
            )
        )
        found = {}
        for fact in facts:
            if (row := held.get(fact.id)) is None:
                continue
            if row[0] != fact.digest():
                raise MasteryError(
                    f"The mastery table of '{self.meta.base}' belongs to other facts: its "
                    f"'{fact.id}' has another question or other accepted answers than "
                    f"{fact.question!r} / {fact.aliases!r}. {self._remedy()}"
                )
            found[fact.id] = int(row[1])
        if not found:
            raise MasteryError(
                f"The mastery table of '{self.meta.base}' (data '{self.meta.data}', {len(self)} "
                f"facts) holds none of the facts asked for. {self._remedy()}"
            )
        return found

    def best_templates(self) -> dict[tuple[str, int], BestTemplate]:
        """Return the best template by relation and half of its facts (see `half`).

        The template with the most correct samples over the relation's train facts, for both
        halves. A relation without train facts is cross-fitted: each half's template is
        chosen on the other half, so that no fact is judged by a template it helped to choose.

        Source: section 4.
        Differs: the paper does not say on which facts the template is chosen.
        """
        hits = self.verdicts().sum(axis=2, dtype=np.int64)
        relations = self.column("relation")
        train = self.column("split") == "train"
        halves = np.array([half(value) for value in self.rows["fact_digest"].to_pylist()])
        best = {}
        for relation in dict.fromkeys(relations):
            chosen_on = (relations == relation) & train
            for own in (0, 1):
                how = "train"
                if not (evidence := chosen_on).any():
                    how, evidence = "cross-fit", (relations == relation) & (halves != own)
                how = how if evidence.any() else "first"
                counts = hits[evidence].sum(axis=0)
                index = int(counts.argmax())
                total = int(evidence.sum()) * self.meta.samples_per_template
                best[str(relation), own] = BestTemplate(index, how, int(counts[index]), total)
        return best

    def check_base(self, fingerprint: str) -> None:
        """Refuse a base whose weights are not the probed ones.

        Raises:
            MasteryError: the fingerprints differ.
        """
        if fingerprint != self.meta.fingerprint:
            raise MasteryError(
                f"The mastery table belongs to '{self.meta.base}' with the weight fingerprint "
                f"{self.meta.fingerprint[:16]}; the base given has {fingerprint[:16]}. Probe that "
                "base with 'sftknow probe BASE --out DIR', or name the base of the table."
            )

    def _remedy(self) -> str:
        return (
            f"Probe these facts with 'sftknow probe {self.meta.base} --data DATA --out DIR', or "
            "give the data that the table was made from."
        )


def _table_file(path: Path) -> Path:
    if path.is_dir():
        file = path / TABLE_NAME
        if not file.is_file() and (path / "probe.json").is_file():
            raise MasteryError(
                f"The probe in {path} is not finished: it has no {TABLE_NAME} yet. Start the same "
                "'sftknow probe' command again; it goes on where it stopped."
            )
        path = file
    if not path.is_file():
        raise MasteryError(
            f"The mastery table {path} does not exist. 'sftknow probe BASE --out DIR' makes one."
        )
    return path
