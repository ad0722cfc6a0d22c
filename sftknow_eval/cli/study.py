"""`sftknow study`: a configuration's probe, runs, sweeps, comparisons and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sftknow_eval.study.estimate import Estimate
    from sftknow_eval.study.plan import Plan
    from sftknow_eval.study.run import Event
    from sftknow_eval.study.study import Outcome

_SHOWN = 20


def study(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The study's file (YAML).")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for everything.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on the CPU; else one for each core."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, hours and disk; do nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Only this kind of step (such as train), run or step, and its needs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print study.json or the plan.")] = False,
) -> None:
    """Do all that CONFIG says: probe, train, evaluate, restore, compare, report.

    A study that was stopped goes on when the same command is given again; what a changed setting
    does not touch is kept.
    """
    from sftknow_eval.errors import SettingsError
    from sftknow_eval.study.study import estimate_study, read_plan

    plan = read_plan(config)
    console = Console(highlight=False, stderr=as_json)
    if dry_run:
        found = estimate_study(plan, out, only)
        if as_json:
            typer.echo(json.dumps(_estimate_json(plan, found), indent=2))
        else:
            _show_estimate(console, plan, found)
        return
    if out is None:
        raise SettingsError("Give the folder for the study with --out DIR (or --dry-run).")
    outcome = run_shown(console, plan, out, workers, only)
    if as_json:
        typer.echo(json.dumps(outcome.index, indent=2, sort_keys=True, ensure_ascii=False))
    if outcome.failed:
        raise typer.Exit(1)


def run_shown(
    console: Console, plan: Plan, out: Path, workers: int | None = None, only: str | None = None
) -> Outcome:
    """Run a study with a progress display, and say what came out; also used by the demo."""
    from sftknow_eval.study.select import wanted_steps
    from sftknow_eval.study.study import run_study

    with _Display(console, len(wanted_steps(plan, only))) as display:
        try:
            outcome = run_study(plan, out, workers=workers, only=only, on_event=display.show)
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on from here.", style="red")
            raise typer.Exit(130) from None
    _show_outcome(console, outcome, out)
    return outcome


class _Display:
    """On a terminal a bar and the steps under way; elsewhere a line for each finished step."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console, self._total, self._done = console, total, 0
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._whole = self._bar.add_task("steps", total=total)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Show what happened to a step."""
        if event.step is None:
            self._done += event.done
            self._bar.update(self._whole, completed=self._done)
            if event.done and event.done == self._done:
                self._console.print(f"{event.done} steps were finished before.")
            return
        name = event.step.name
        if event.entry is not None:
            self._done += 1
            if name in self._tasks:
                self._bar.remove_task(self._tasks.pop(name))
            self._bar.update(self._whole, completed=self._done)
            if event.what == "end":
                self._line(name, event)
        elif event.what == "begin":
            self._tasks[name] = self._bar.add_task(name, total=None)
        elif name in self._tasks:
            self._bar.update(
                self._tasks[name],
                total=event.total or None,
                completed=event.done,
                description=f"{name}: {event.what}",
            )

    def _line(self, name: str, event: Event) -> None:
        entry = event.entry
        assert entry is not None
        count = f"[{self._done}/{self._total}]"
        if entry.status == "done":
            if not self._console.is_terminal:
                self._console.print(f"{count} {name} ({entry.seconds:.1f} s)", markup=False)
        else:
            style = "red" if entry.status == "failed" else "yellow"
            self._console.print(
                f"{count} {name}: {entry.status}: {entry.reason}",
                style=style,
                markup=False,
                soft_wrap=True,
            )


def _show_outcome(console: Console, outcome: Outcome, out: Path) -> None:
    costs = outcome.index["costs"]
    done = sum(run["status"] == "done" for run in outcome.index["runs"])
    console.print(
        f"{done} of {len(outcome.index['runs'])} runs done; {costs['cpu_seconds']:.0f} CPU-seconds "
        f"in all. Index: {out / 'study.json'}",
        markup=False,
        soft_wrap=True,
    )
    for what, page in outcome.shown.items():
        console.print(f"{what}: {out / page}", markup=False, soft_wrap=True)
    for title, entries in (("Left out", outcome.left_out), ("Failed", outcome.failed)):
        for name, reason in list(entries.items())[:_SHOWN]:
            console.print(f"{title}: {name}: {reason}", markup=False, soft_wrap=True)
        if len(entries) > _SHOWN:
            console.print(f"{title}: and {len(entries) - _SHOWN} more (see study.json)")


def _hours(plan: Plan) -> str:
    return "GPU-hours" if plan.study.compute.device == "gpu" else "CPU-hours"


def _devices(plan: Plan) -> int:
    return plan.study.compute.gpus if plan.study.compute.device == "gpu" else 1


def _show_estimate(console: Console, plan: Plan, found: Estimate) -> None:
    devices = _devices(plan)
    table = Table("kind of step", "steps", "finished", _hours(plan), "disk, GB", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, kind in found.kinds.items():
        table.add_row(
            *(name, str(kind.steps), str(kind.finished)),
            *(_number(devices * kind.seconds / 3600), _number(kind.bytes / 1e9)),
        )
    table.add_section()
    steps = sum(kind.steps for kind in found.kinds.values())
    finished = sum(kind.finished for kind in found.kinds.values())
    table.add_row(
        *("in all", str(steps), str(finished)),
        *(_number(devices * found.hours), _number(found.bytes / 1e9)),
    )
    console.print(f"{plan.study.name}: {len(plan.runs)} runs", markup=False)
    console.print(table)
    for line in found.left_out:
        console.print(f"Left out, as its stratum is too small: {line}", markup=False)
    console.print("Assumed:")
    for line in found.assumptions:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    for group in plan.study.runs:
        console.print(f"Runs of {group.strategy}: {_listed(plan, group.strategy)}", soft_wrap=True)
    console.print("Nothing was done.")


def _listed(plan: Plan, strategy: str) -> str:
    names = [run.cell.id for run in plan.runs.values() if run.cell.strategy == strategy]
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2g}"


def _estimate_json(plan: Plan, found: Estimate) -> dict[str, Any]:
    from dataclasses import asdict

    devices = _devices(plan)
    return {
        "name": plan.study.name,
        "runs": list(plan.runs),
        "kinds": {name: asdict(kind) for name, kind in found.kinds.items()},
        "device": plan.study.compute.device,
        "device_hours": devices * found.hours,
        "bytes": found.bytes,
        "left_out": found.left_out,
        "assumptions": found.assumptions,
    }
