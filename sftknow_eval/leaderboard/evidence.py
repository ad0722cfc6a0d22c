"""The evidence of a row: one Parquet file a seed, one line a fact, with the output text.

With the base's store it is all that a judge needs to judge again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.bounded_json import parse_bounded
from sftknow_eval.leaderboard.contained import read_bytes, sha256
from sftknow_eval.leaderboard.parquet_guard import Limits, read_table

FORMAT = "sftknow-evidence/1"
SCHEMA = pa.schema(
    [
        pa.field("fact_id", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("prompt_digest", pa.binary(8), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("kl_top10", pa.float64(), nullable=True),
    ]
)
LIMITS = Limits()
_KEY = b"sftknow"
_IDENTITY_LIMIT = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What one seed answered to each fact.

    Attributes:
        fact_ids: in the order of the base's store.
        outputs: as the engine returned them.
        prompts: 8 bytes of the SHA-256 of each prompt.
        correct: the verdict `alias_acc` of the run; bool (facts).
        kl: top-10 KL in nats, NaN where it was not measured; float64 (facts).
        identity: what the file says it belongs to (`identity`).
        sha256: of the file.
    """

    fact_ids: list[str]
    outputs: list[str]
    prompts: bytes
    correct: np.ndarray
    kl: np.ndarray
    identity: Mapping[str, Any]
    sha256: str

    def __len__(self) -> int:
        return len(self.fact_ids)

    def outputs_digest(self) -> str:
        """Return the SHA-256 over fact ids and outputs."""
        return text_digest(self.fact_ids, self.outputs)

    def prompts_digest(self) -> str:
        """Return the SHA-256 over fact ids and prompts."""
        return prompts_digest(self.fact_ids, self.prompts)


def identity(*, base: str, weights: str, recipe: str | None, seed: int) -> dict[str, Any]:
    """Return what a file of evidence says of itself: base, weights, recipe and seed."""
    return {"format": FORMAT, "base": base, "weights": weights, "recipe": recipe, "seed": seed}


def evidence_path(folder: Path, seed: int) -> Path:
    """Return where the evidence of a seed lies."""
    return folder / "evidence" / f"seed-{seed}.parquet"


def prompt_digests(prompts: Iterable[str]) -> bytes:
    """Return 8 bytes for each prompt, one after the other."""
    return b"".join(hashlib.sha256(prompt.encode()).digest()[:8] for prompt in prompts)


def prompts_digest(fact_ids: Sequence[str], prompts: bytes) -> str:
    """Return the SHA-256 over fact ids and the digests of their prompts."""
    return sha256("\x1f".join(fact_ids).encode() + b"\x1e" + prompts)


def text_digest(fact_ids: Sequence[str], texts: Sequence[str]) -> str:
    """Return the SHA-256 over fact ids and one text each; lengths keep texts apart."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)).tobytes()
    joined = "\x1f".join(fact_ids) + "\x1e" + "".join(texts)
    return sha256(joined.encode("utf-8", "surrogatepass") + lengths)


def write_evidence(path: Path, evidence: Evidence) -> str:
    """Write a file of evidence, atomically; return its SHA-256. Equal evidence, equal bytes."""
    kl = pa.array(evidence.kl, pa.float64(), mask=np.isnan(evidence.kl))
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8), len(evidence), [None, pa.py_buffer(evidence.prompts)]
    )
    columns = [
        pa.array(evidence.fact_ids, pa.string()),
        pa.array(evidence.outputs, pa.string()),
        packed,
        pa.array(evidence.correct),
        kl,
    ]
    record = json.dumps(dict(evidence.identity), sort_keys=True, separators=(",", ":"))
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata({_KEY: record}))
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=1 << 20)
        return sha256(partial.read_bytes())


def read_evidence(folder: Path, seed: int, limits: Limits = LIMITS) -> Evidence:
    """Return the evidence of a seed of a submission; nothing in it is trusted.

    Raises:
        SubmissionError: the file is missing, a link, too large, or not as `SCHEMA` says.
    """
    return read_evidence_file(evidence_path(folder, seed), folder, limits)


def read_evidence_file(path: Path, folder: Path, limits: Limits = LIMITS) -> Evidence:
    """Return the evidence in a file that lies in `folder`; see `read_evidence`."""
    content = read_bytes(path, folder, limits.bytes)
    name = str(path.relative_to(folder))
    table = read_table(content, SCHEMA, limits, name)
    text = (table.schema.metadata or {}).get(_KEY, b"")
    if not text or len(text) > _IDENTITY_LIMIT:
        raise SubmissionError(f"{name} does not say what it belongs to.")
    said = parse_bounded(text, name)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise SubmissionError(f"{name} is not evidence of the format '{FORMAT}'.")
    if nulls := [c for c in SCHEMA.names if c != "kl_top10" and table.column(c).null_count]:
        raise SubmissionError(f"{name} has missing values in {', '.join(nulls)}.")
    return Evidence(
        # By lists: `to_numpy` imports pandas, a sixth of a second.
        fact_ids=table.column("fact_id").to_pylist(),
        outputs=table.column("output").to_pylist(),
        prompts=b"".join(table.column("prompt_digest").to_pylist()),
        correct=np.array(table.column("correct").to_pylist(), bool),
        kl=_kl(table, name),
        identity=said,
        sha256=sha256(content),
    )


def _kl(table: Any, name: str) -> np.ndarray:
    found = table.column("kl_top10").to_pylist()
    given = np.array([value for value in found if value is not None], np.float64)
    # Rounding may leave a divergence of equal distributions a little below zero.
    if not np.isfinite(given).all() or (given < -1e-6).any():
        raise SubmissionError(f"{name}: a token drift is negative or no number.")
    return np.array(found, np.float64)  # None as NaN
