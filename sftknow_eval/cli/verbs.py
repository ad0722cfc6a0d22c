"""The list of verbs, in the order in which the help shows them."""

from __future__ import annotations

import typer

from sftknow_eval.cli import train


def register(app: typer.Typer) -> None:
    """Add every verb to `app`."""
    app.command("train")(train.train)
