"""What a study took: CPU time by kind of step, and the share that is none of the models'."""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sftknow_eval.study.plan import Plan
from sftknow_eval.study.step import Entry

# What kinds of steps do with models; everything else is the study's own.
WORK = {
    "world": "training",
    "train": "training",
    "probe": "generation",
    "evaluate": "generation",
    "sweep": "generation",
    "layers": "generation",
    "restored": "generation",
    "interpolation-curve": "generation",
    "tokens": "generation",
    "other-task": "generation",
    "weights": "weight passes",
    "interpolate": "weight passes",
}


def ledger(
    plan: Plan, entries: Mapping[str, Entry], overhead: Mapping[str, float]
) -> dict[str, Any]:
    """Return CPU seconds and wall seconds by kind of step, and the study's own share.

    Args:
        plan: the steps.
        entries: what became of them; earlier runs' times count as well.
        overhead: CPU seconds outside of steps, by what they went to, over all runs.
    """
    kinds: defaultdict[str, dict[str, float]] = defaultdict(
        lambda: {"steps": 0, "cpu_seconds": 0.0, "seconds": 0.0, "reused": 0}
    )
    for name, entry in entries.items():
        if entry.status in ("done", "failed"):
            kind = kinds[plan.steps[name].kind]
            kind["steps"] += 1
            kind["reused"] += entry.reused
            kind["cpu_seconds"] += entry.cpu_seconds
            kind["seconds"] += entry.seconds
    models: defaultdict[str, float] = defaultdict(float)
    own = sum(overhead.values())
    for name, kind in kinds.items():
        if name in WORK:
            models[WORK[name]] += kind["cpu_seconds"]
        else:
            own += kind["cpu_seconds"]
    total = own + sum(models.values())
    return {
        "kinds": {name: dict(kind) for name, kind in sorted(kinds.items())},
        "models": dict(models),
        "study": dict(overhead),
        "cpu_seconds": total,
        "own_share": own / total if total else None,
    }


def process_seconds() -> float:
    """Return the CPU seconds of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
