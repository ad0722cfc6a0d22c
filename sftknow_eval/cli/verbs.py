"""The list of verbs, in the order in which the help shows them."""

from __future__ import annotations

import typer

from sftknow_eval.cli import (
    board,
    compare,
    demo,
    drift,
    evaluate,
    facts,
    interpolate,
    mastery,
    probe,
    report,
    restore,
    study,
    sweep,
    tasks,
    train,
    world,
)


def register(app: typer.Typer) -> None:
    """Add every verb to `app`."""
    app.command("facts")(facts.facts)
    app.command("demo")(demo.demo)
    app.command("probe", context_settings=probe.CONTEXT)(probe.probe)
    app.add_typer(mastery.app, name="mastery")
    app.command("world")(world.world)
    app.command("train")(train.train)
    app.command("eval")(evaluate.evaluate)
    app.command("compare")(compare.compare)
    app.command("lm-eval", **tasks.PASS_THROUGH)(tasks.lm_eval)
    app.command("install-tasks")(tasks.install_tasks)
    app.command("restore")(restore.restore)
    app.command("interpolate")(interpolate.interpolate)
    app.command("sweep")(sweep.sweep)
    app.add_typer(drift.app, name="drift")
    app.command("report")(report.report)
    app.command("gate")(report.gate)
    app.command("study")(study.study)
    app.add_typer(board.app, name="board")
