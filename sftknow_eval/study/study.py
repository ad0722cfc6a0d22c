"""A whole study: its file read, its steps done, its index, report and board made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.study.checks import load_study
from sftknow_eval.study.costs import ledger, process_seconds
from sftknow_eval.study.estimate import Estimate, estimate
from sftknow_eval.study.index import INDEX, write_index
from sftknow_eval.study.plan import BOARD, REPORT, Plan
from sftknow_eval.study.planner import make_plan
from sftknow_eval.study.run import OnEvent, Scheduler, finished_steps, held
from sftknow_eval.study.select import wanted_steps
from sftknow_eval.study.step import Entry

_OVERHEAD = "overhead.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a study.

    Attributes:
        entries: of all steps, as far as something is known of them.
        index: `study.json`.
    """

    plan: Plan
    entries: Mapping[str, Entry]
    index: Mapping[str, Any]

    @property
    def failed(self) -> dict[str, str]:
        """Return the steps that failed by themselves, with their reasons."""
        return {
            name: entry.reason or ""
            for name, entry in self.entries.items()
            if entry.status == "failed"
        }

    @property
    def shown(self) -> dict[str, str]:
        """Return the pages that were made, by what they are, as paths in the study's folder."""
        pages = {"Report": self.index["report"], "Board": self.index["board"]}
        return {what: page for what, page in pages.items() if page}

    @property
    def left_out(self) -> dict[str, str]:
        """Return the runs that were left out, with their reasons."""
        return {
            run["id"]: run["reason"] for run in self.index["runs"] if run["status"] == "left out"
        }


def read_plan(config: Path) -> Plan:
    """Read a study's file and plan its steps.

    Raises:
        SettingsError: the file has faults; all are listed.
    """
    return make_plan(load_study(config), config.resolve().parent)


def estimate_study(plan: Plan, out: Path | None, only: str | None = None) -> Estimate:
    """Return what is left to do of a study would cost; writes nothing."""
    finished = finished_steps(plan, out) if out and out.is_dir() else set()
    names = wanted_steps(plan, only)
    return estimate(plan, out, finished | (plan.steps.keys() - names))


def run_study(
    plan: Plan,
    out: Path,
    *,
    workers: int | None = None,
    only: str | None = None,
    on_event: OnEvent = lambda event: None,
) -> Outcome:
    """Do what is not finished of a study.

    Args:
        plan: its steps.
        out: the study's folder, which may hold what an earlier run finished.
        workers: processes on the CPU; one for each core if not given.
        only: see `wanted_steps`.
        on_event: told of what happens.

    Raises:
        SettingsError: another study in the folder, or no GPU where one is needed.
        OutOfSpace: the disk filled up; what was finished is kept.
    """
    names = wanted_steps(plan, only)
    out = out.resolve()
    with held(out):

        def index_now(entries: Mapping[str, Entry]) -> None:
            # Report and board show a study that is finished but for themselves.
            write_index(plan, out, entries, {}, finished=_finished(plan, entries, {REPORT, BOARD}))

        scheduler = Scheduler(plan, out, names, on_event, index_now)
        if scheduler.needs_gpu():
            require_gpus(plan)
        entries = scheduler.run(workers or os.cpu_count() or 1)
        overhead = _overhead(out, scheduler.overhead)
        costs = ledger(plan, entries, overhead)
        index = write_index(plan, out, entries, costs, finished=_finished(plan, entries, set()))
    return Outcome(plan, entries, index)


def _finished(plan: Plan, entries: Mapping[str, Entry], but: Set[str]) -> bool:
    """Return whether all steps, but some, are done or left out."""
    ended = {name for name, entry in entries.items() if entry.status in ("done", "left out")}
    return plan.steps.keys() - but <= ended


def _overhead(out: Path, now: Mapping[str, float]) -> dict[str, float]:
    """Add this run's CPU time outside of steps to that of earlier runs; return the sums."""
    path = out / _OVERHEAD
    before = read_json(path) if path.is_file() else {}
    mine = {**now, "scheduling": process_seconds()}
    sums = {name: before.get(name, 0.0) + mine.get(name, 0.0) for name in before | mine}
    write_json(path, sums)
    return sums


def require_gpus(plan: Plan) -> None:
    """Refuse a study for GPUs where there are too few.

    Raises:
        SettingsError: as said; it names the study and what was found.
    """
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    needed = plan.study.compute.gpus
    if there < needed:
        raise SettingsError(
            f"The study '{plan.study.name}' needs {needed} GPU{'s' if needed > 1 else ''} "
            f"(compute.device is gpu, compute.gpus is {needed}); torch can use {there} here. Run "
            "it where they are, or look at what it would do with --dry-run."
        )


__all__ = ["INDEX", "Outcome", "estimate_study", "read_plan", "run_study"]
