"""From results to rows: `sftknow board submit`, for studies and for single evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.base_store import BaseStore, load_base
from sftknow_eval.leaderboard.base_writer import BaseMaterial, base_store, known_base
from sftknow_eval.leaderboard.from_study import STUDY_NAME, read_study, study_rows
from sftknow_eval.leaderboard.manifest import BENCHMARK, SCHEMA_NAME, Track, schema_text
from sftknow_eval.leaderboard.material import (
    RowMaterial,
    eval_seed,
    read_answers,
    read_results,
    regime_of,
    slug,
)
from sftknow_eval.leaderboard.submit import Declaration, submit_row
from sftknow_eval.leaderboard.verify import Verifier
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.find import find_mastery
from sftknow_eval.mastery.table import TABLE_NAME, MasteryTable
from sftknow_eval.record import read_record

Existing = Literal["refuse", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Names and places that results do not say, or not rightly; None for the obvious ones.

    Attributes:
        strategy: on the board; of the strategy track, one of `configs/strategies/` or a YAML file.
        run: of the row within its strategy.
        base_id: folder of the base below `mastery/`; `base_name` is what it is called.
        mastery: the mastery table that gave the strata.
        data: the facts.
        track: `checkpoint` for a model that nobody is to train again.
        existing: what to do with a row that is there: refuse it, or keep it and go on.
    """

    strategy: str | None = None
    run: str | None = None
    base_id: str | None = None
    base_name: str | None = None
    mastery: Path | None = None
    data: Path | None = None
    track: Track | None = None
    existing: Existing = "refuse"


def submit(
    results: Sequence[Path],
    root: Path,
    declaration: Declaration,
    naming: Naming | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write a submission for each row in the results, verified; return their folders.

    Args:
        results: one study's folder, or the folders of `sftknow eval`, one for each seed of one row.
        root: the leaderboard's folder; made where it is missing.
        declaration: what only the submitter can say.
        naming: names and places.
        progress: told about each row.

    Raises:
        SettingsError: the results are not of the whole test split, or a row is there already.
        SubmissionError: a row would be refused.
    """
    naming = naming or Naming()
    prepare(root)
    if len(results) == 1 and (results[0] / STUDY_NAME).is_file():
        return _submit_study(results[0].resolve(), root, declaration, naming, progress)
    rows = _eval_row(results, naming)
    store = _eval_base(results[0], root, naming)
    return _submitted([rows], store, root, declaration, naming, progress)


def prepare(root: Path) -> None:
    """Make the folders of a leaderboard where they are missing, with the published schema."""
    for name in ("submissions", "mastery"):
        (root / name).mkdir(parents=True, exist_ok=True)
    schema = root / "schema" / SCHEMA_NAME
    if not schema.is_file():
        with atomic_path(schema) as partial:
            partial.write_text(schema_text(), encoding="utf-8")


def _submitted(
    rows: Sequence[RowMaterial],
    store: BaseStore,
    root: Path,
    declaration: Declaration,
    naming: Naming,
    progress: Callable[[str], None],
) -> list[Path]:
    folders = []
    verifier = Verifier(root.resolve())
    for row in rows:
        place = f"{BENCHMARK}/{store.info.id}/{row.strategy}/{row.run}"
        folder = root / "submissions" / place
        if folder.exists() and naming.existing == "keep":
            progress(f"{place}: is there already")
        else:
            progress(f"{place}: {len(row.seeds)} seeds")
            folder = submit_row(verifier, row, store, declaration)
        folders.append(folder)
    return folders


def _submit_study(
    folder: Path,
    root: Path,
    declaration: Declaration,
    naming: Naming,
    progress: Callable[[str], None],
) -> list[Path]:
    study = read_study(folder)
    folders = []
    for base in study["bases"]:
        rows = study_rows(folder, study, base["id"])
        if rows:
            store = _study_base(folder, base, rows[0].base_results, root, naming)
            folders += _submitted(rows, store, root, declaration, naming, progress)
    if not folders:
        raise SettingsError(f"{folder} holds no finished run that was evaluated on the test facts.")
    return folders


def _study_base(
    folder: Path, base: dict[str, Any], results: Path, root: Path, naming: Naming
) -> BaseStore:
    known = naming.base_id or known_base(root, base["fingerprint"])
    name = naming.base_name or base["name"]
    found = _own_answers(results)
    material = BaseMaterial(
        id=known or slug(name),
        name=name,
        revision=None,
        model=Path(found["model"]),
        table=MasteryTable.read(folder / base["mastery"]),
        dataset=open_dataset(folder / base["data"] if base["data"] else None),
        record=found,
        answers=read_answers(results, "base"),
    )
    return base_store(root, material)


def _own_answers(folder: Path) -> dict[str, Any]:
    """Return what results say of the base.

    Raises:
        SettingsError: it was not asked.
    """
    found: dict[str, Any] | None = read_results(folder)["base"]
    if found is None:
        raise SettingsError(
            f"{folder} has no answers of the base beside the fine-tune's. Evaluate again with "
            "--base BASE."
        )
    return found


def _eval_row(folders: Sequence[Path], naming: Naming) -> RowMaterial:
    seeds = [eval_seed(folder, place) for place, folder in enumerate(folders)]
    records = [seed.record for seed in seeds]
    regimes = {regime_of(record).key: regime_of(record) for record in records}
    names = {record.strategy for record in records if record} or {"checkpoint"}
    if len(regimes) > 1 or len(names) > 1:
        raise SettingsError(
            f"The folders are of different rows: strategies {', '.join(sorted(names))}, data "
            f"{', '.join(sorted(regimes))}. Give the seeds of one row at a time."
        )
    regime = next(iter(regimes.values()))
    name = naming.strategy or names.pop()
    is_file = name.endswith((".yaml", ".yml"))
    trained = all(record and record.stratum is not None for record in records)
    track: Track = naming.track or ("strategy" if trained else "checkpoint")
    return RowMaterial(
        strategy=slug(Path(name).stem if is_file else name),
        strategy_file=name if track == "strategy" else None,
        regime=regime,
        run=slug(naming.run or regime.key),
        seeds=seeds,
        base_results=folders[0],
    )


def _eval_base(results: Path, root: Path, naming: Naming) -> BaseStore:
    task = read_results(results)["task"]
    known = naming.base_id or known_base(root, task["mastery_fingerprint"])
    stored = root / "mastery" / (known or "") / TABLE_NAME
    if known and stored.is_file():
        return load_base(stored.parent)
    found = _own_answers(results)
    name = naming.base_name or Path(str(found["model"])).name
    material = BaseMaterial(
        id=known or slug(name),
        name=name,
        revision=task["mastery_revision"],
        model=Path(found["model"]),
        table=find_mastery(explicit=naming.mastery, base=task["mastery_fingerprint"]),
        dataset=open_dataset(naming.data or _recorded_data(results)),
        record=found,
        answers=read_answers(results, "base"),
    )
    return base_store(root, material)


def _recorded_data(results: Path) -> Path | None:
    model = read_results(results)["finetuned"]["model"]
    record = read_record(model) if Path(model).is_dir() else None
    return Path(record.data_source) if record and Path(record.data_source).exists() else None
