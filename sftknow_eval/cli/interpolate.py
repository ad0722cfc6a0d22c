"""`sftknow interpolate`: models between a base and its fine-tune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sftknow_eval.cli.pairs import shown_progress, split_numbers


def interpolate(
    base: Annotated[str, typer.Argument(help="The base: local folder or hub id.")],
    finetuned: Annotated[
        str, typer.Argument(help="The fine-tune, or a LoRA adapter: local folder or hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the models, one folder a weight.")],
    weights: Annotated[
        str, typer.Option(help="Percent of the way from the base to the fine-tune.")
    ] = "20,40,60,80",
    base_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    finetuned_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Write weighted means of a base's weights and its fine-tune's (WiSE-FT)."""
    from sftknow_eval.training.interpolate import interpolate as run

    with shown_progress(as_json) as progress:
        made = run(
            *(base, finetuned, split_numbers("--weights", weights), out),
            revisions=(base_revision, finetuned_revision),
            progress=progress,
        )
    if as_json:
        rows = [{"weight": m.weight, "path": str(m.folder), "written": m.written} for m in made]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    for model in made:
        there = "" if model.written else ", was there already"
        console.print(f"{model.weight:g}% of the way{there} -> {model.folder}", soft_wrap=True)
