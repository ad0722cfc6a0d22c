"""`sftknow demo`: the whole measurement on a small model made on the spot."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path("demo-out"),
    size: Annotated[
        Literal["demo", "tiny"], typer.Option(help="demo: minutes; tiny: a quick look.")
    ] = "demo",
    seed: Annotated[int, typer.Option(help="Of the world and of the draw of facts.")] = 0,
) -> None:
    """Make a world, probe a base, fine-tune it, see which facts it lost, and restore weights.

    Each step is an ordinary command, shown before it runs. Finished steps are not run again.
    """
    from sftknow_eval.demo import Journal, demo_steps

    console = Console(highlight=False)
    steps = demo_steps(out, size, seed)
    journal = Journal(out, steps)
    console.print(f"The whole measurement in small; everything goes to {out}.", markup=False)
    for number, step in enumerate(steps):
        console.print(
            Text(f"\n[{number + 1}/{len(steps)}] {step.title}", style="bold"), soft_wrap=True
        )
        console.print(Text(f"$ {step.command}", style="cyan"), soft_wrap=True)
        if journal.is_finished(number) and not step.shows_results:
            console.print("Finished before: reused.")
            continue
        began = time.monotonic()
        try:
            journal.run(number)
        except subprocess.CalledProcessError as error:
            console.print(
                f"Step {number + 1} ended with exit code {error.returncode}. Finished steps are "
                "kept: the same command goes on from here.",
                style="red",
            )
            raise typer.Exit(error.returncode if error.returncode > 0 else 1) from None
        console.print(f"({time.monotonic() - began:.0f} s)", style="dim")
    _show_summary(console, out)


def _show_summary(console: Console, out: Path) -> None:
    from sftknow_eval.artifacts import read_json
    from sftknow_eval.demo import EVALUATION, FINETUNED, RESTORATION, next_commands, summary
    from sftknow_eval.record import read_record

    record = read_record(out / FINETUNED)
    assert record is not None
    console.print(Text("\nWhat is seen", style="bold"))
    width = min(console.width, 100) - 2
    swept = read_json(out / RESTORATION / "sweep.json")
    for paragraph in summary(read_json(out / EVALUATION / "results.json"), record, swept):
        console.print(Text(textwrap.indent(textwrap.fill(paragraph, width), "  ") + "\n"))
    console.print(Text(f"Everything is in {out}. To go on:", style="bold"))
    if not _is_on_path():
        activate = Path(sys.executable).parent / "activate"
        console.print(Text(f"  source {activate}", style="cyan"), soft_wrap=True)
    for purpose, command in next_commands(out, record.n):
        console.print(Text(f"  # {purpose}", style="dim"), soft_wrap=True)
        console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)


def _is_on_path() -> bool:
    found = shutil.which("sftknow")
    return found is not None and Path(found).parent == Path(sys.executable).parent
