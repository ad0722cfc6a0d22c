"""Records of rows that a maintainer ran again: `reproductions/VERSION/BASE/STRATEGY/RUN.json`.

`sftknow board reproduce` writes them. A record counts for the very manifest it names, and only if
its own numbers agree with the row's within the bounds stated here:

    the mean over seeds of ID, OOD and lost differs by at most 2 points each.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.bounded_json import read_bounded
from sftknow_eval.leaderboard.contained import read_bytes, sha256
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.manifest import MANIFEST_LIMIT, MANIFEST_NAME, Manifest
from sftknow_eval.leaderboard.manifest_parts import Counts, Seed, Strict
from sftknow_eval.leaderboard.texts import FileName, Hex, Line

FOLDER = "reproductions"
BOUND = 0.02
_LIMIT = 1 << 20


class ReproducedSeed(Strict):
    """What one seed gave when it was run again."""

    seed: Seed
    weights: Hex
    outputs: Hex
    counts: Counts


class Reproduction(Strict):
    """A maintainer's record.

    Attributes:
        manifest: SHA-256 of the row's manifest.
        by: the maintainer.
        same_outputs: seeds whose outputs were the same, fact by fact.
    """

    format: Literal["sftknow-reproduction/1"] = "sftknow-reproduction/1"
    row: Annotated[str, Field(pattern=r"^[a-z0-9._-]+(?:/[a-z0-9._-]+){3}$")]
    manifest: Hex
    by: Line
    date: Annotated[datetime.date, Field(strict=False)]
    seeds: Annotated[tuple[ReproducedSeed, ...], Field(min_length=1, max_length=32, strict=False)]
    same_outputs: Annotated[int, Field(ge=0)]
    versions: Annotated[dict[FileName, Line], Field(max_length=64)]


def record_path(root: Path, row: str) -> Path:
    """Return where the record of a row lies."""
    return root / FOLDER / f"{row}.json"


def is_reproduced(root: Path, folder: Path, manifest: Manifest) -> bool:
    """Return whether a maintainer's record says that a row came out the same.

    A record that cannot be read, names another manifest or does not agree counts for nothing.
    """
    path = record_path(root, manifest.row)
    if not path.is_file():
        return False
    try:
        record = Reproduction.model_validate(read_bounded(path, root, _LIMIT))
        content = read_bytes(folder / MANIFEST_NAME, folder, MANIFEST_LIMIT)
    except (SubmissionError, ValidationError):
        return False
    same_row = record.row == manifest.row and record.manifest == sha256(content)
    return same_row and not disagreements(manifest, record)


def read_record(path: Path, root: Path) -> Reproduction:
    """Return a maintainer's record.

    Raises:
        SubmissionError: it is missing or malformed.
    """
    try:
        return Reproduction.model_validate(read_bounded(path, root, _LIMIT))
    except ValidationError as error:
        raise SubmissionError(faults_of(error, path.name)) from error


def disagreements(manifest: Manifest, record: Reproduction) -> list[str]:
    """Return in what a row and its record differ by more than the bound; empty if they agree."""
    again = {run.seed: run.counts for run in record.seeds}
    claimed = {run.seed: run.counts for run in manifest.seeds}
    if again.keys() != claimed.keys():
        return [f"seeds {sorted(again)} were run again; the row has {sorted(claimed)}"]
    found = []
    for name in ("id", "ood", "lost"):
        before = mean_of([score(counts, name) for counts in claimed.values()])
        after = mean_of([score(counts, name) for counts in again.values()])
        if before is None and after is None:
            continue
        if before is None or after is None or abs(before - after) > BOUND:
            found.append(f"{name}: {_percent(before)} claimed, {_percent(after)} when run again")
    return found


def score(counts: Counts, name: str) -> float | None:
    """Return the ID or OOD mean of the strata, or the share lost, from counts."""
    if name == "lost":
        return counts.lost.n_correct / counts.lost.n if counts.lost.n else None
    strata = counts.id if name == "id" else counts.ood
    shares = [share.n_correct / share.n for share in strata or () if share.n]
    return math.fsum(shares) / len(shares) if shares else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there."""
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None


def _percent(value: float | None) -> str:
    return "nothing" if value is None else f"{100 * value:.2f}%"
