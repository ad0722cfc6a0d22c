"""`sftknow drift`: what fine-tuning moved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sftknow_eval.cli.pairs import chosen_region, shown_progress, split_numbers
from sftknow_eval.cli.tokens import tokens

if TYPE_CHECKING:
    from sftknow_eval.drift.report import Report, Share

app = typer.Typer(help="Measure what fine-tuning moved.", no_args_is_help=True)


app.command()(tokens)


@app.command()
def weights(
    base: Annotated[str, typer.Argument(help="The base: local folder or hub id.")],
    finetuned: Annotated[
        str, typer.Argument(help="The fine-tune, or a LoRA adapter: local folder or hub id.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for change.json and the plots (SVG and PNG).")
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Percent of the weights to report on.")
    ] = "1,3,5,10,20,40,60",
    region: Annotated[
        str, typer.Option(help="transformer, attention, mlp, embedding or all.")
    ] = "transformer",
    layers: Annotated[str | None, typer.Option(help="Only these layers, such as 0-3.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Pattern of tensor names to take as well.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Pattern of tensor names to leave out.")
    ] = None,
    base_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    finetuned_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Report how much each weight changed, and where a restoration would act."""
    from sftknow_eval.artifacts import write_json
    from sftknow_eval.drift.change import measure
    from sftknow_eval.drift.report import CURVE_RATIOS, report
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.run import ModelName, opened

    shown = [ratio for ratio in split_numbers("--ratios", ratios) if ratio]
    asked = sorted({*shown, *CURVE_RATIOS})
    names = ModelName(base, base_revision), ModelName(finetuned, finetuned_revision)
    with opened(*names) as models, shown_progress(as_json) as progress:
        pair = match(*models, chosen_region(region, layers, include, exclude))
        total = sum(tensor.common for tensor in pair.tensors)
        change = measure(
            *(*models, pair.tensors, asked),
            statistics=True,
            progress=lambda done: progress("Comparing", done, total),
        )
    found = report(change)
    focus = 20.0 if 20.0 in shown or not shown else shown[-1]
    if out is not None:
        from sftknow_eval.drift.plots import save_plots

        write_json(out / "change.json", found.as_json())
        if found.changed:
            save_plots(found, out, focus)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        _show(found, shown, focus, pair.notes, out)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def _show(
    found: Report, shown: list[float], focus: float, notes: tuple[str, ...], out: Path | None
) -> None:
    console = Console(highlight=False)
    console.print(
        f"{found.elements:,} weights compared, {found.changed:,} changed "
        f"({found.changed_fraction:.2%})."
    )
    for note in notes:
        console.print(note)
    if not found.changed:
        console.print("The two checkpoints are identical in this region.")
        return
    norm = found.whole.relative_norm
    console.print(
        f"L2 norm of the change: {found.whole.change_norm:.4g}"
        + (f", {norm:.4g} of the base's." if norm is not None else ".")
    )
    console.print(_ratio_table(found, shown))
    places = [at.ratio for at in found.ratios]
    if found.layers:
        console.print(_share_table("layer", found.layers.items(), places.index(focus), focus))
    console.print(_share_table("module", found.modules.items(), places.index(focus), focus))
    if out is not None:
        console.print(f"Report and plots: {out}", soft_wrap=True)


def _ratio_table(found: Report, shown: list[float]) -> Table:
    table = Table("restored", "weights", "that changed", "smallest change", "of all change")
    for at in found.ratios:
        if at.ratio in shown:
            table.add_row(
                *(f"{at.ratio:g}%", f"{at.restored:,}"),
                f"{at.effective_restored:,}" + (" (all)" if at.saturated else ""),
                "-" if at.threshold is None else f"{at.threshold:.4g}",
                _percent(at.concentration),
            )
    return table


def _share_table(what: str, shares: Iterable[tuple[object, Share]], j: int, ratio: float) -> Table:
    table = Table(what, "weights", "changed", f"share at {ratio:g}%", "over its size")
    for place, share in shares:
        enrichment = share.enrichment[j]
        table.add_row(
            *(str(place), f"{share.elements:,}", _percent(share.changed / share.elements)),
            _percent(share.share[j]),
            "-" if enrichment is None else f"{enrichment:.2f}",
        )
    return table
