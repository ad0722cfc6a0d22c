"""`sftknow restore`: give the most changed weights of a fine-tune back to its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sftknow_eval.cli.pairs import chosen_region, shown_progress, split_numbers
from sftknow_eval.errors import SettingsError

if TYPE_CHECKING:
    from sftknow_eval.restoration.output import Restored
    from sftknow_eval.restoration.recipe import Recipe


def restore(
    base: Annotated[str, typer.Argument(help="The base: local folder or hub id.")],
    finetuned: Annotated[
        str, typer.Argument(help="The fine-tune, or a LoRA adapter: local folder or hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results, one folder a ratio.")],
    ratios: Annotated[
        str | None, typer.Option(help="Percent of the region's weights, such as 1,3,5,10,20.")
    ] = None,
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
    order: Annotated[str, typer.Option(help="top, bottom or random.")] = "top",
    seed: Annotated[int, typer.Option(help="Seed of the order random.")] = 0,
    arithmetic: Annotated[
        str, typer.Option(help="float32, or bfloat16 as in the authors' code.")
    ] = "float32",
    recipe_only: Annotated[
        bool, typer.Option("--recipe-only", help="Write the recipes and no checkpoints.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="Apply this recipe instead of making one.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Apply this mask (safetensors).")] = None,
    write_mask: Annotated[
        bool, typer.Option("--write-mask", help="Also write which elements are restored.")
    ] = False,
    base_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    finetuned_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Give the most changed weights of a fine-tune back to its base."""
    from sftknow_eval.restoration.mask import Mask
    from sftknow_eval.restoration.output import (
        save_checkpoints,
        save_masked,
        save_masks,
        save_recipes,
    )
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.recipe import Recipe
    from sftknow_eval.restoration.run import ModelName, check_recipe, make_recipes, opened

    if sum(option is not None for option in (ratios, recipe, mask)) != 1:
        raise SettingsError("Give exactly one of --ratios, --recipe and --mask.")
    names = ModelName(base, base_revision), ModelName(finetuned, finetuned_revision)
    with opened(*names) as models, shown_progress(as_json) as progress:
        if mask is not None:
            results = [save_masked(models, Mask(mask), out, progress=progress)]
        else:
            if recipe is not None:
                recipes = [Recipe.read(recipe)]
                pair = match(*models, recipes[0].region)
                check_recipe(recipes[0], pair)
            else:
                chosen = chosen_region(region, layers, include, exclude)
                pair = match(*models, chosen)
                wanted = split_numbers("--ratios", ratios or "")
                ranking = _ranking(order, arithmetic, seed)
                recipes = make_recipes(pair, names, chosen, wanted, ranking, progress)
            if recipe_only or not recipes[0].changed:
                results = save_recipes(recipes, out)
            else:
                results = save_checkpoints(pair, recipes, out, progress=progress)
            if write_mask:
                save_masks(pair, recipes, out)
    _show(results, as_json)


def _ranking(order: str, arithmetic: str, seed: int) -> Any:
    from sftknow_eval.drift.scan import ARITHMETICS, ORDERS, Ranking

    if order not in ORDERS:
        raise SettingsError(f"--order {order!r}: expected one of {', '.join(ORDERS)}.")
    if arithmetic not in ARITHMETICS:
        expected = ", ".join(ARITHMETICS)
        raise SettingsError(f"--arithmetic {arithmetic!r}: expected one of {expected}.")
    return Ranking(order, arithmetic, seed)


def _facts(recipe: Recipe) -> dict[str, Any]:
    return {
        "ratio": recipe.ratio,
        "elements": recipe.elements,
        "restored": recipe.restored,
        "effective_restored": recipe.effective_restored,
        "changed_fraction": recipe.changed_fraction,
        "saturated": recipe.saturated,
        "threshold": recipe.threshold,
    }


def _show(results: list[Restored], as_json: bool) -> None:
    if as_json:
        rows = [
            {"path": str(r.path), "written": r.written} | (_facts(r.recipe) if r.recipe else {})
            for r in results
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    first = results[0].recipe
    if first is not None and not first.changed:
        console.print(
            f"Nothing to restore: none of the {first.elements:,} weights of the region differs "
            "between the two checkpoints. The recipes say so; no checkpoint was written."
        )
    elif first is not None:
        console.print(
            f"{first.elements:,} weights compared, {first.changed:,} of them changed "
            f"({first.changed_fraction:.1%})."
        )
    for result in results:
        recipe = result.recipe
        text = ""
        if recipe is not None and recipe.changed:
            text = f"{recipe.ratio:g}%: {recipe.restored:,} weights restored"
            if recipe.effective_restored < recipe.restored:
                text += f", of which {recipe.effective_restored:,} had changed"
            text += " (all that changed)" if recipe.saturated else ""
            text += ", was there already" if not result.written else ""
        console.print(f"{text} -> {result.path}" if text else str(result.path), soft_wrap=True)
