"""Rows from a study's folder: one for each strategy and data regime, its draws as seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.manifest_parts import CurvePoint
from sftknow_eval.leaderboard.material import (
    RowMaterial,
    SeedMaterial,
    read_answers,
    read_results,
    recipe_of,
    regime,
    slug,
)
from sftknow_eval.record import read_record

STUDY_NAME = "study.json"
FORMAT = "sftknow-study/1"
# The board has these rows of its own.
_CONTROLS = ("base", "base_again")
_DRIFT_STRATUM = 4

Run = Mapping[str, Any]


def read_study(folder: Path) -> dict[str, Any]:
    """Return a study's index.

    Raises:
        SettingsError: it is of another format.
        DataError: it is not readable.
    """
    study: dict[str, Any] = read_json(folder / STUDY_NAME)
    if study.get("format") != FORMAT:
        raise SettingsError(
            f"{folder / STUDY_NAME} has the format {study.get('format')!r}; '{FORMAT}' of 'sftknow "
            "study' was expected."
        )
    return study


def study_rows(folder: Path, study: Mapping[str, Any], base: str) -> list[RowMaterial]:
    """Return the material of every row of one base that a study finished.

    Runs that failed or were left out are no seeds; a strategy without any is no row. Strategies
    that train come first: what is derived from them may turn out to be the same.
    """
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study["runs"]:
        if run["base"] != base or run["strategy"] in _CONTROLS or run["status"] != "done":
            continue
        if (run.get("evaluation") or {}).get("test"):
            key = regime(run["stratum"], run["n"]).key
            grouped[run["strategy"], key].append(run)
    derived = {key: runs[0].get("kind") != "training" for key, runs in grouped.items()}
    ordered = sorted(grouped, key=lambda key: (derived[key], key))
    return [_row(folder, study, key[0], grouped[key]) for key in ordered]


def _row(folder: Path, study: Mapping[str, Any], strategy: str, runs: Sequence[Run]) -> RowMaterial:
    first = runs[0]
    found = regime(first["stratum"], first["n"])
    ordered = sorted(runs, key=lambda run: run["draw"] or 0)
    return RowMaterial(
        strategy=slug(strategy),
        strategy_file=strategy,
        regime=found,
        run=slug(f"{study['name']}-{found.key}"),
        seeds=[_seed(folder, study, run) for run in ordered],
        base_results=folder / first["evaluation"]["test"],
    )


def _seed(folder: Path, study: Mapping[str, Any], run: Run) -> SeedMaterial:
    results_folder = folder / run["evaluation"]["test"]
    results = read_results(results_folder)
    source = _source(study, run)
    trained = folder / source["model"] if source and source["model"] else None
    name = str(results["finetuned"]["model"])
    model = Path(name) if Path(name).is_dir() else trained
    recipe, weight = recipe_of(results), run.get("chosen_weight")
    return SeedMaterial(
        seed=run["draw"] or 0,
        results=results,
        answers=read_answers(results_folder, "finetuned"),
        model=name,
        folder=model,
        record=read_record(trained) if trained else None,
        recipe=recipe,
        drift=_drift(folder / run["token_drift"]) if run.get("token_drift") else {},
        curve=tuple(_curve(folder / source["sweep"])) if source and source.get("sweep") else (),
        chosen=recipe.ratio if recipe else weight,
    )


def _source(study: Mapping[str, Any], run: Run) -> Run | None:
    """Return the run that trained the model: itself, or that which it is derived from."""
    if run["model"] or run.get("kind") == "published":
        return run
    from sftknow_eval.training.strategy import load_strategy

    origin = load_strategy(run["strategy"]).derived_from
    cell = ("base", "stratum", "n", "draw")
    for other in study["runs"]:
        if other["strategy"] == origin and all(other[name] == run[name] for name in cell):
            found: Run = other
            return found
    return None


def _drift(folder: Path) -> dict[str, float]:
    """Return the top-10 KL by fact id, on the protocol's facts alone."""
    import pyarrow.parquet as pq

    columns = ["fact_id", "domain", "stratum", "kl_top10", "answer_first"]
    rows = pq.read_table(folder / "token_drift.parquet", columns=columns).to_pylist()
    return {
        row["fact_id"]: float(row["kl_top10"])
        for row in rows
        if row["domain"] == "id" and row["stratum"] == _DRIFT_STRATUM and row["answer_first"]
    }


def _curve(folder: Path) -> Iterator[CurvePoint]:
    path = folder / "test" / "sweep.json"
    if not path.is_file():
        return
    for point in read_json(path)["points"]:
        if scores := point.get("scores"):
            means = {d: scores[d]["alias_acc"]["mean"]["value"] for d in ("id", "ood")}
            yield CurvePoint(ratio=point["ratio"], of_changed=point["of_changed"], **means)
