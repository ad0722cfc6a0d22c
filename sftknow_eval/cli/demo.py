"""`sftknow demo`: the mini-world's study, from nothing to a report."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from sftknow_eval.study.study import Outcome


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path("demo-out"),
    quick: Annotated[
        bool, typer.Option("--quick", help="One stratum and draw: some minutes.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With a second base model: twice the time.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; else one for each core.")
    ] = None,
) -> None:
    """Make a world, probe a base, fine-tune it in many ways, and report what it forgot.

    A study like any other, of a configuration that comes with the package. Finished steps are
    not done again.
    """
    from sftknow_eval.cli.study import run_shown
    from sftknow_eval.demo import demo_config
    from sftknow_eval.errors import SettingsError
    from sftknow_eval.study.study import read_plan

    if quick and full:
        raise SettingsError("Give one of --quick and --full.")
    config = demo_config("quick" if quick else "full" if full else "demo")
    console = Console(highlight=False)
    console.print(f"The whole measurement in small; everything goes to {out}.", markup=False)
    console.print(
        Text(f"$ sftknow study {_shown(config)} --out {out}", style="cyan"), soft_wrap=True
    )
    outcome = run_shown(console, read_plan(config), out, workers)
    _show_summary(console, outcome, out)
    if outcome.failed:
        raise typer.Exit(1)


def _shown(path: Path) -> Path:
    """Return a path as one would type it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _show_summary(console: Console, outcome: Outcome, out: Path) -> None:
    from sftknow_eval.demo import next_commands, summary

    console.print(Text("\nWhat is seen", style="bold"))
    width = min(console.width, 100) - 2
    for paragraph in summary(out):
        filled = "\n".join(_filled(line, width) for line in paragraph.splitlines())
        console.print(Text(textwrap.indent(filled, "  ") + "\n"))
    console.print(Text(f"Everything is in {out}. To go on:", style="bold"))
    if not _is_on_path():
        activate = Path(sys.executable).parent / "activate"
        console.print(Text(f"  source {activate}", style="cyan"), soft_wrap=True)
    for purpose, command in next_commands(out):
        console.print(Text(f"  # {purpose}", style="dim"), soft_wrap=True)
        console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)
    for what, page in outcome.shown.items():
        console.print(Text(f"{what}: {out / page}", style="bold"), soft_wrap=True)


def _filled(line: str, width: int) -> str:
    hanging = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, break_on_hyphens=False, subsequent_indent=hanging)


def _is_on_path() -> bool:
    found = shutil.which("sftknow")
    return found is not None and Path(found).parent == Path(sys.executable).parent
