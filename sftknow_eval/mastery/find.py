"""Finding the mastery table of a base: named, or in the cache by weights or by name.

Every finished or pulled table is copied into `SFTKNOW_CACHE/mastery/`, under a name made of
its base's weight fingerprint and its settings. A table says itself what it is about, so the
folder needs no index.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path, cache_dir, digest
from sftknow_eval.errors import CheckpointError, MasteryError, ModelError
from sftknow_eval.mastery.table import TABLE_NAME, MasteryTable, TableMeta
from sftknow_eval.mastery.table_meta import read_meta
from sftknow_eval.models import locate_model, weight_fingerprint

log = logging.getLogger(__name__)

ENVIRONMENT = "SFTKNOW_MASTERY"


@dataclasses.dataclass(frozen=True, slots=True)
class CachedTable:
    """A table in the cache, known by its record alone."""

    path: Path
    meta: TableMeta
    facts: int


def register(table_path: str | Path) -> Path:
    """Copy a table into the cache, so that tasks find it by its base; return the copy."""
    path = Path(table_path)
    path = path / TABLE_NAME if path.is_dir() else path
    meta = MasteryTable.read(path).meta
    name = f"{meta.fingerprint[:16]}-{digest(dataclasses.asdict(meta))[:16]}.parquet"
    copy = cache_dir() / "mastery" / name
    with atomic_path(copy) as partial:
        shutil.copyfile(path, partial)
    return copy


def cached_tables() -> list[CachedTable]:
    """Return the tables in the cache, the one with most facts first, then the newest."""
    found = []
    for path in (cache_dir() / "mastery").glob("*.parquet"):
        try:
            file = pq.ParquetFile(path)
            found.append(
                CachedTable(path, read_meta(path, file.schema_arrow), file.metadata.num_rows)
            )
        except (OSError, pa.ArrowException, MasteryError) as error:
            log.warning("%s in the cache is not usable: %s", path, error)
    return sorted(found, key=lambda table: (-table.facts, -table.path.stat().st_mtime, table.path))


def find_mastery(
    *, explicit: str | Path | None = None, base: str | None = None, model: str | None = None
) -> MasteryTable:
    """Return the mastery table, sought in the order of design and arguments.

    Args:
        explicit: a table or a probe's folder, as named by the user.
        base: the base model of the model args, recognised by its weights.
        model: the evaluated model, which may be the base itself.

    The environment variable `SFTKNOW_MASTERY` comes after `explicit`. Nothing is downloaded:
    a hub id whose weights are not here is looked up by name.

    Raises:
        MasteryError: none found (the message says which command makes it), or the one named
            belongs to another base.
        ModelError: `base` is a folder that is not a model.
    """
    named = explicit or os.environ.get(ENVIRONMENT)
    if named:
        table = MasteryTable.read(named)
        if base is not None and (fingerprint := _fingerprint(base, strict=True)):
            table.check_base(fingerprint)
        return table
    tables = cached_tables()
    for name, strict in ((base, True), (model, False)):
        if name is None:
            continue
        if (cached := _in_cache(name, tables, strict=strict)) is not None:
            return cached
    raise MasteryError(_not_found(base, model, tables))


def _in_cache(name: str, tables: list[CachedTable], *, strict: bool) -> MasteryTable | None:
    fingerprint = _fingerprint(name, strict=strict)
    # Known weights decide; the name counts only where the weights are not here.
    fits = [
        table
        for table in tables
        if (table.meta.fingerprint == fingerprint if fingerprint else table.meta.base == name)
        or table.meta.fingerprint == name
    ]
    if not fits:
        return None
    if len(fits) > 1:
        log.info("%d tables of '%s' are cached; %s has most facts.", len(fits), name, fits[0].path)
    return MasteryTable.read(fits[0].path)


def _fingerprint(name: str, *, strict: bool) -> str | None:
    folder: Path | None = Path(name)
    if not Path(name).is_dir():
        folder = _snapshot(name)
    if folder is None:
        return None
    try:
        return weight_fingerprint(locate_model(str(folder)))
    except (ModelError, CheckpointError):
        if strict:
            raise
        return None


def _snapshot(name: str) -> Path | None:
    """Return the local snapshot of a hub id; never goes to the network."""
    if name.count("/") > 1 or not all(name.split("/")):
        return None
    from huggingface_hub import snapshot_download

    with contextlib.suppress(Exception):
        return Path(snapshot_download(name, local_files_only=True))
    return None


def _not_found(base: str | None, model: str | None, tables: list[CachedTable]) -> str:
    if base is None and model is None:
        about = "No base model is named"
    else:
        names = [f"'{name}'" for name in (base, model) if name is not None]
        about = f"No mastery table of {' or '.join(names)} is known"
    known = sorted({table.meta.base for table in tables})
    return (
        f"{about}. Make one with 'sftknow probe {base or 'BASE'} --out DIR' (BASE is the model "
        "before fine-tuning; the tasks take its name as --metadata base=BASE), or name a table "
        f'with --metadata \'{{"mastery": "PATH"}}\' or {ENVIRONMENT}=PATH. '
        f"The cache {cache_dir() / 'mastery'} holds tables of: {', '.join(known) or 'none'}."
    )
