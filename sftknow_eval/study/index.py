"""`study.json`: what a study holds and where, for the report, the leaderboard and the reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest, installed_versions, read_json, write_json
from sftknow_eval.study.plan import Plan, Run
from sftknow_eval.study.step import INSIDE, Entry

FORMAT = "sftknow-study/1"
INDEX = "study.json"

_PACKAGES = ("sftknow-eval", "torch", "transformers", "trl", "peft", "lm_eval", "numba")
_SPLITS = ("test", "dev", "train")


def write_index(
    plan: Plan,
    root: Path,
    entries: Mapping[str, Entry],
    costs: Mapping[str, Any],
    *,
    finished: bool,
) -> dict[str, Any]:
    """Write the index from the plan and the journal's entries, and return it."""
    config = plan.study.model_dump(mode="json")
    comparison = "statistics"
    index = {
        "format": FORMAT,
        "name": plan.study.name,
        "title": plan.study.title,
        "config": config,
        "config_digest": digest(config),
        "finished": finished,
        "bases": [_base(plan, root, base.id) for base in plan.study.bases],
        "runs": [_run(run, root, entries) for run in plan.runs.values()],
        "other_tasks": [],
        "comparison": f"{comparison}/comparison.json" if _done(entries, comparison) else None,
        "costs": dict(costs),
        "versions": installed_versions(*_PACKAGES),
    }
    write_json(root / INDEX, index)
    return index


def _done(entries: Mapping[str, Entry], step: str | None) -> bool:
    return step is not None and step in entries and entries[step].status == "done"


def _base(plan: Plan, root: Path, name: str) -> dict[str, Any]:
    base = next(base for base in plan.study.bases if base.id == name)
    places = plan.places[name]
    return {
        "id": name,
        "name": base.title or base.model or f"mini-world {base.world and base.world.seed}",
        "path": _place(places.base),
        "fingerprint": _fingerprint(root, places.mastery),
        "mastery": _place(places.mastery),
        "data": None if places.data is None else _place(places.data),
        "world_seed": base.world.seed if base.world else None,
    }


def _place(location: str) -> str:
    return location.removeprefix(INSIDE)


def _fingerprint(root: Path, mastery: str) -> str | None:
    """Return the base's weight fingerprint as the mastery table states it."""
    path = root / _place(mastery)
    if not path.is_file():
        return None
    import pyarrow.parquet as pq

    from sftknow_eval.mastery.table_meta import read_meta

    return read_meta(path, pq.read_schema(path)).fingerprint


def _run(run: Run, root: Path, entries: Mapping[str, Entry]) -> dict[str, Any]:
    status, reason = _status(run, entries)
    at = {name: step for name, step in run.steps.items() if _done(entries, step)}
    cell, model = run.cell, at.get("model")
    return {
        "id": run.id,
        "strategy": run.strategy,
        "base": run.base,
        "stratum": cell.stratum if cell else None,
        "n": cell.n if cell else None,
        "draw": cell.draw if cell else None,
        "status": status,
        "reason": reason,
        "model": model,
        "record": f"{model}/sftknow.json" if model else None,
        "evaluation": {split: at.get(f"eval-{split}") for split in _SPLITS},
        "sweep": at.get("sweep"),
        "train_set": at.get("train-set"),
        "chosen_ratio": _chosen(root, at.get("sweep")),
        "token_drift": at.get("tokens"),
        "weights": at.get("weights"),
        "layers": at.get("layers"),
        "cpu_seconds": sum(entries[s].cpu_seconds for s in run.steps.values() if s in entries),
    }


def _chosen(root: Path, sweep: str | None) -> float | None:
    path = root / sweep / "choice.json" if sweep else None
    return read_json(path)["ratio"] if path and path.is_file() else None


def _status(run: Run, entries: Mapping[str, Entry]) -> tuple[str, str | None]:
    """Return a run's status: as bad as the worst of its steps, and that step's reason."""
    found = [entries[step] for step in run.steps.values() if step in entries]
    for status in ("failed", "blocked", "left out"):
        for entry in found:
            if entry.status == status:
                return "failed" if status == "blocked" else status, entry.reason
    complete = len(found) == len(run.steps)
    return ("done", None) if complete else ("not run", None)
