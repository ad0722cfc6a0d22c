"""`sftknow world`: the mini-world, a small base model and the facts it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console


def world(
    out: Annotated[Path, typer.Option("--out", help="Folder for the world.")],
    size: Annotated[
        Literal["tiny", "demo"], typer.Option(help="tiny: seconds; demo: about a minute.")
    ] = "demo",
    seed: Annotated[int, typer.Option(help="Of names, facts, text and weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print world.json.")] = False,
) -> None:
    """Make a mini-world: made-up facts and a small base model pre-trained on them.

    A test bed for the whole pipeline on a laptop; it is no evidence about large models.
    """
    from sftknow_eval.world.build import build_world
    from sftknow_eval.world.settings import world_settings

    Console(stderr=True, highlight=False).print(
        f"Mini-world '{size}', seed {seed}: facts, text, tokenizer, then pre-training on one core "
        f"({'about a minute' if size == 'demo' else 'some seconds'}).",
        markup=False,
        soft_wrap=True,
    )
    with _Progress() as progress:
        folder, reused = build_world(out, world_settings(size, seed), progress.show)
    if as_json:
        typer.echo((folder / "world.json").read_text(encoding="utf-8"), nl=False)
    else:
        _report(folder, reused)


class _Progress:
    """A bar on stderr; without a terminal nothing."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar of a stage, which is added when it is first heard of."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)


def _report(folder: Path, reused: bool) -> None:
    from sftknow_eval.artifacts import read_json

    record = read_json(folder / "world.json")
    console = Console(highlight=False)
    if reused:
        console.print(f"{folder} holds this world already (same settings): nothing to do.")
        return
    facts = ", ".join(f"{record['facts'][split]:,} {split}" for split in ("train", "dev", "test"))
    losses = record["pretraining_loss"]
    lines = (
        f"Facts      {facts}",
        f"Base       {record['parameters']:,} parameters, read {record['statements']:,} statements",
        f"Loss       {losses[0]['loss']:.2f} to {losses[-1]['loss']:.2f} nats a token",
        f"World      {folder} (its settings: world.json)",
        f"Next       sftknow probe {folder / 'base'} --data {folder} --out DIR",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
