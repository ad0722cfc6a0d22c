"""The folder of a probe: one process at a time, one settings file, one shard a chunk of facts.

    OUT/probe.json                   settings, written first
    OUT/engine.json                  what the engine said of itself
    OUT/shards/00012.parquet         verdict bits of the facts of chunk 12
    OUT/completions/00012.parquet    their texts, where asked for
    OUT/mastery.parquet              the table, written last

Every file is whole or absent. A shard names the settings it was made under and the facts it
is about; one that is unreadable or does not fit is computed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path, digest, read_json, write_json
from sftknow_eval.errors import DataError, SettingsError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.probe_settings import differences
from sftknow_eval.mastery.table import TABLE_NAME

log = logging.getLogger(__name__)

_SETTINGS_KEY = b"sftknow-shard"


class ProbeFolder:
    """The files of one probe, under the settings in `record`."""

    def __init__(self, out: Path, record: dict[str, Any]) -> None:
        self.out = out
        self.record = record
        self.table = out / TABLE_NAME
        self._key = digest(record).encode()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises:
            SettingsError: the folder cannot be written, or another probe runs in it.
        """
        path = self.out / ".lock"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
        except OSError as error:
            raise SettingsError(
                f"The folder {self.out} cannot be written: {error.strerror or error}. Give another "
                "with --out."
            ) from error
        with handle:
            try:
                # A record lock (lockf), unlike flock, is not inherited by forked engine
                # processes, which may outlive a killed probe for a while.
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SettingsError(
                    f"Another probe is running in {self.out}. Wait for it, or give another folder "
                    "with --out."
                ) from error
            self._remove_leftovers()
            yield

    def claim(self) -> None:
        """Write `probe.json`, or compare it with the one that is there.

        Raises:
            SettingsError: the folder holds a probe with other settings, or a foreign table.
        """
        path = self.out / "probe.json"
        if not path.exists():
            if self.table.exists():
                raise SettingsError(
                    f"{self.table} exists without a probe.json: it was not made here. Give "
                    "another folder with --out."
                )
            write_json(path, self.record)
            return
        try:
            there = read_json(path)
        except DataError as error:
            raise SettingsError(f"{error} Remove it, or give another folder with --out.") from error
        if lines := differences(there, self.record):
            raise SettingsError(
                f"{self.out} holds a probe with other settings:\n  "
                + "\n  ".join(lines)
                + "\nGive the same settings to go on with it, or another folder with --out."
            )

    def engine(self) -> dict[str, Any] | None:
        """Return the record of the engine that computed what is there, or None."""
        path = self.out / "engine.json"
        return dict(read_json(path)) if path.exists() else None

    def check_engine(self, described: dict[str, Any]) -> dict[str, Any]:
        """Store an engine's record, or compare it with the stored one; return it as stored.

        Raises:
            SettingsError: what was computed before came from an engine of other properties.
        """
        engine: dict[str, Any] = json.loads(json.dumps(described))
        there = self.engine()
        if there is None:
            write_json(self.out / "engine.json", engine)
        elif lines := differences(there, engine):
            raise SettingsError(
                f"{self.out} holds a probe by another engine:\n  "
                + "\n  ".join(lines)
                + "\nUse the same versions and machine to go on with it, or another folder."
            )
        return engine

    def write_shard(
        self, chunk: int, facts: Sequence[Fact], packed: np.ndarray, texts: list[list[str]] | None
    ) -> None:
        """Write the verdicts of a chunk, its texts first: a shard marks a finished chunk.

        Args:
            chunk: number of the chunk.
            facts: its facts, in order.
            packed: uint8 (facts, bytes).
            texts: completions of each (fact, template), facts outermost, where kept.
        """
        if texts is not None:
            self._write(self._completions(chunk), _text_rows(facts, packed, texts))
        digests = [fact.digest() for fact in facts]
        columns = {
            "fact_digest": pa.array(digests, pa.binary(8)),
            "verdicts": pa.array([row.tobytes() for row in packed], pa.binary(packed.shape[1])),
        }
        self._write(self._shard(chunk), pa.table(columns))

    def read_shard(
        self, chunk: int, facts: Sequence[Fact], width: int, with_texts: bool
    ) -> np.ndarray | None:
        """Return the packed verdicts of a finished chunk, or None where it must be computed."""
        path = self._shard(chunk)
        if not path.exists():
            return None
        try:
            rows = self._read(path)
            if rows["fact_digest"].to_pylist() != [fact.digest() for fact in facts]:
                raise ValueError("it is about other facts")
            packed = np.frombuffer(b"".join(rows["verdicts"].to_pylist()), np.uint8)
            packed = packed.reshape(len(facts), width)
            if with_texts:
                self._read(self._completions(chunk))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            log.warning("%s is not usable (%s); its facts are probed again.", path, error)
            return None
        return packed

    def _remove_leftovers(self) -> None:
        patterns = [f".{name}.*.partial" for name in ("probe.json", "engine.json", TABLE_NAME)]
        patterns += [f"{folder}/.*.partial" for folder in ("shards", "completions")]
        for pattern in patterns:
            for leftover in self.out.glob(pattern):
                leftover.unlink(missing_ok=True)

    def _shard(self, chunk: int) -> Path:
        return self.out / "shards" / f"{chunk:05d}.parquet"

    def _completions(self, chunk: int) -> Path:
        return self.out / "completions" / f"{chunk:05d}.parquet"

    def _write(self, path: Path, rows: Any) -> None:
        with atomic_path(path) as partial, partial.open("wb") as handle:
            pq.write_table(
                rows.replace_schema_metadata({_SETTINGS_KEY: self._key}),
                handle,
                compression="zstd",
            )

    def _read(self, path: Path) -> Any:
        rows = pq.read_table(path)
        if (rows.schema.metadata or {}).get(_SETTINGS_KEY) != self._key:
            raise ValueError("it was made under other settings")
        return rows


def _text_rows(facts: Sequence[Fact], packed: np.ndarray, texts: list[list[str]]) -> Any:
    n_samples = len(texts[0])
    n_templates = len(texts) // len(facts)
    n_texts = len(facts) * n_templates * n_samples
    per_fact = np.unpackbits(packed, axis=1, count=n_templates * n_samples, bitorder="little")
    return pa.table(
        {
            "fact_id": pa.array(
                [fact.id for fact in facts for _ in range(n_templates * n_samples)], pa.string()
            ),
            "template": pa.array(
                np.tile(np.repeat(np.arange(n_templates, dtype=np.int16), n_samples), len(facts))
            ),
            "sample": pa.array(np.arange(n_texts) % n_samples, pa.int16()),
            "text": pa.array([text for group in texts for text in group], pa.string()),
            "verdict": pa.array(per_fact.ravel().view(bool)),
        }
    )
