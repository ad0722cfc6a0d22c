"""The list of verbs, in the order in which the help shows them."""

from __future__ import annotations

import typer

from sftknow_eval.cli import demo, mastery, probe, train, world


def register(app: typer.Typer) -> None:
    """Add every verb to `app`."""
    app.command("demo")(demo.demo)
    app.command("probe", context_settings=probe.CONTEXT)(probe.probe)
    app.add_typer(mastery.app, name="mastery")
    app.command("world")(world.world)
    app.command("train")(train.train)
