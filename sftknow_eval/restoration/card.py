"""The README of a written checkpoint: what it is and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftknow_eval import __version__
from sftknow_eval.restoration.mask import Mask
from sftknow_eval.restoration.recipe import Recipe, Source

_ORDERS = {
    "top": "with the largest relative change |s - p| / (|p| + 1e-8)",
    "bottom": "with the smallest relative change |s - p| / (|p| + 1e-8)",
    "random": "drawn at random",
}


def _named(source: Source) -> str:
    return f"`{source.name}`" + (f" at revision `{source.revision}`" if source.revision else "")


def _region(recipe: Recipe) -> str:
    region = recipe.region
    text = f"`{region.name}`"
    if region.layers is not None:
        text += f", layers {', '.join(map(str, region.layers))}"
    for word, patterns in (("with", region.include), ("without", region.exclude)):
        text += f", {word} {', '.join(f'`{p}`' for p in patterns)}" if patterns else ""
    return text


def card(recipe: Recipe, notes: Sequence[str] = ()) -> str:
    """Return the README of a checkpoint that a recipe gave."""
    seed = f" (seed {recipe.seed})" if recipe.order == "random" else ""
    lines = [
        f"# {Path(recipe.finetuned.name).name}, {recipe.ratio:g}% restored",
        "",
        f"The fine-tuned model {_named(recipe.finetuned)}, in which {recipe.restored:,} of "
        f"{recipe.elements:,} weights have the values of the base {_named(recipe.base)} again: "
        f"the {recipe.ratio:g}% {_ORDERS[recipe.order]}{seed}. Region: {_region(recipe)}; "
        f"arithmetic: {recipe.arithmetic}.",
        "",
        f"- {recipe.changed:,} weights ({recipe.changed_fraction:.2%}) had changed at all; "
        f"{recipe.effective_restored:,} of the restored ones had.",
    ]
    if recipe.saturated:
        lines.append("- Every changed weight of the region is restored.")
    lines += [f"- {note}" for note in notes]
    lines += [
        "",
        "`recipe.json` says exactly which elements they are; the same recipe on the same two "
        "checkpoints gives the same bytes. Everything else is the fine-tune's.",
        "",
        "Method: Ye et al., *Analyzing the Effects of Supervised Fine-Tuning on Model Knowledge "
        "from Token and Parameter Levels*, EMNLP 2025. The licences of both models apply.",
        "",
        f"Written by sftknow-eval {__version__}.",
        "",
    ]
    return "\n".join(lines)


def mask_card(mask: Mask, base: Path, finetuned: Path) -> str:
    """Return the README of a checkpoint that a mask from elsewhere gave."""
    restored = sum(mask.restored(name) for name in mask.names)
    return (
        f"# {finetuned.name}, restored by a mask\n\n"
        f"The fine-tuned model `{finetuned}`, in which {restored:,} weights of "
        f"{len(mask.names)} tensors have the values of the base `{base}` again: those that the "
        f"mask `{mask.path.name}` (XXH3-128 {mask.digest}) names. Everything else is the "
        "fine-tune's. The licences of both models apply.\n\n"
        f"Written by sftknow-eval {__version__}.\n"
    )
