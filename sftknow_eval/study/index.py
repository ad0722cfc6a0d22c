"""`study.json`: what a study holds and where, for the report, the leaderboard and the reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest, installed_versions, read_json, write_json
from sftknow_eval.study.config import OtherTask
from sftknow_eval.study.plan import BOARD, REPORT, STATISTICS, Plan, Run
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
    index = {
        "format": FORMAT,
        "name": plan.study.name,
        "title": plan.study.title,
        "config": config,
        "config_digest": digest(config),
        "finished": finished,
        "bases": [_base(plan, root, base.id) for base in plan.study.bases],
        "runs": [_run(run, root, entries) for run in plan.runs.values()],
        "other_tasks": [_other(task, entries) for task in plan.study.other_tasks],
        "comparison": f"{STATISTICS}/comparison.json" if _done(entries, STATISTICS) else None,
        "report": f"{REPORT}/index.html" if _done(entries, REPORT) else None,
        "board": f"{BOARD}/site/index.html" if _done(entries, BOARD) else None,
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
        "id": cell.id,
        "strategy": cell.strategy,
        "kind": run.kind,
        "base": cell.base,
        "stratum": cell.stratum,
        "n": cell.n,
        "draw": cell.draw,
        "status": status,
        "reason": reason,
        "model": model,
        "record": f"{model}/sftknow.json" if model else None,
        "evaluation": {split: at.get(f"eval-{split}") for split in _SPLITS},
        "sweep": at.get("sweep"),
        "train_set": _own_facts(root, at.get("sweep")),
        **_chosen(root, at),
        "token_drift": at.get("tokens"),
        "weights": at.get("weights"),
        "layers": at.get("layers"),
        "curve": at.get("curve"),
        "cpu_seconds": sum(entries[s].cpu_seconds for s in run.steps.values() if s in entries),
    }


def _own_facts(root: Path, sweep: str | None) -> str | None:
    """Return the folder of the sweep over the run's own training facts, if there is one."""
    return f"{sweep}/train" if sweep and (root / sweep / "train").is_dir() else None


def _chosen(root: Path, at: Mapping[str, str]) -> dict[str, Any]:
    """Return what was chosen on dev: the ratio of a restoration, the weight of a mean."""
    ratio = weight = None
    for step in (at.get("sweep"), at.get("eval-test")):
        path = root / step / "choice.json" if step else None
        if path and path.is_file():
            ratio = read_json(path)["ratio"]
    if curve := at.get("curve"):
        weight = read_json(root / curve / "curve.json")["choice"]["weight"]
    return {"chosen_ratio": ratio, "chosen_weight": weight}


def _other(task: OtherTask, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Return what became of a task that is not about facts."""
    model, sweep = f"other/{task.name}/model", f"other/{task.name}/sweep"
    known = [entries[step] for step in (model, sweep) if step in entries]
    reasons = [entry.reason for entry in known if entry.status != "done"]
    whole = len(known) == 2 and not reasons
    return {
        "name": task.name,
        "base": task.base,
        "status": "done" if whole else "failed" if reasons else "not run",
        "reason": reasons[0] if reasons else None,
        "model": model if _done(entries, model) else None,
        "sweep": sweep if _done(entries, sweep) else None,
    }


def _status(run: Run, entries: Mapping[str, Entry]) -> tuple[str, str | None]:
    """Return a run's status: as bad as the worst of its steps, and that step's reason."""
    found = [entries[step] for step in run.steps.values() if step in entries]
    for status in ("failed", "blocked", "left out"):
        for entry in found:
            if entry.status == status:
                return "failed" if status == "blocked" else status, entry.reason
    complete = len(found) == len(run.steps)
    return ("done", None) if complete else ("not run", None)
