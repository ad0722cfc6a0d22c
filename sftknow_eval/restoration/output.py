"""Put a restoration on disk: recipes alone, whole checkpoints, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.artifacts import locked
from sftknow_eval.drift.tensors import HELD_AS
from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.restoration.blocks import MaskRestorer, TensorRestorer, sweep_restorer
from sftknow_eval.restoration.card import card, mask_card
from sftknow_eval.restoration.checkpoint import ModelWeights
from sftknow_eval.restoration.mask import Mask, write_mask
from sftknow_eval.restoration.pair import MatchedPair
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.restore import chosen_elements
from sftknow_eval.restoration.run import Progress, silent
from sftknow_eval.restoration.writer import Job, copy_side_files, unfinished, write_weights

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class Restored:
    """One result: a recipe, or a checkpoint with its recipe.

    Attributes:
        path: the recipe's file or the checkpoint's folder.
        recipe: what was restored; None for a mask from elsewhere.
        written: False if it was there already.
    """

    path: Path
    recipe: Recipe | None
    written: bool


def folder_name(ratio: float) -> str:
    """Return the name of a ratio's folder, such as `ratio-20` or `ratio-0.5`."""
    return f"ratio-{ratio:g}"


def save_recipes(recipes: Sequence[Recipe], out: Path) -> list[Restored]:
    """Write recipes alone, one JSON file a ratio."""
    with locked(out):
        results = []
        for recipe in recipes:
            path = out / f"{folder_name(recipe.ratio)}.json"
            recipe.write(path)
            results.append(Restored(path, recipe, True))
        return results


def save_checkpoints(
    pair: MatchedPair,
    recipes: Sequence[Recipe],
    out: Path,
    *,
    progress: Progress = silent,
    threads: int | None = None,
) -> list[Restored]:
    """Write one whole checkpoint for each recipe, all in one read; finished ones are kept.

    Raises:
        SettingsError: a folder holds another restoration, or another run is writing.
        OutOfSpace: the disk filled up.
    """
    with locked(out):
        targets = {recipe.ratio: out / folder_name(recipe.ratio) for recipe in recipes}
        left = [recipe for recipe in recipes if not _is_there(targets[recipe.ratio], recipe)]
        with unfinished([targets[recipe.ratio] for recipe in left]) as folders:

            def restorers(name: str) -> TensorRestorer | None:
                changes = any(name in recipe.names for recipe in left)
                return sweep_restorer(left, name) if changes else None

            if left:
                names = {tensor.name: tensor.base_name for tensor in pair.tensors}
                names |= {twin: names[name] for twin, name in pair.twins.items()}
                job = Job(pair.base, pair.finetuned, folders, restorers, names.__getitem__)
                _write(job, progress, threads)
            for folder, recipe in zip(folders, left, strict=True):
                sides = pair.base.folder, pair.finetuned.folder, pair.finetuned.layout.folder
                copy_side_files(*sides, folder)
                (folder / "README.md").write_text(card(recipe, pair.notes), encoding="utf-8")
                recipe.write(folder / RECIPE_FILE)
        return [Restored(targets[r.ratio], r, r in left) for r in recipes]


def save_masked(
    pair: tuple[ModelWeights, ModelWeights],
    mask: Mask,
    out: Path,
    *,
    progress: Progress = silent,
    threads: int | None = None,
) -> Restored:
    """Write the checkpoint that a mask from elsewhere gives, into `out/mask`.

    Raises:
        CheckpointError: the mask does not fit the models.
        SettingsError: the folder is there, or another run is writing.
    """
    base, finetuned = pair
    for name in sorted(mask.names):
        _check_mask(mask, name, base, finetuned)
    with locked(out):
        target = out / "mask"
        if target.exists():
            raise SettingsError(f"{target} is there already. Choose another --out or remove it.")
        with unfinished([target]) as folders:

            def restorers(name: str) -> TensorRestorer | None:
                return MaskRestorer(mask, name) if name in mask.names else None

            _write(Job(base, finetuned, folders, restorers, mask.base_name), progress, threads)
            copy_side_files(base.folder, finetuned.folder, finetuned.layout.folder, folders[0])
            readme = folders[0] / "README.md"
            readme.write_text(mask_card(mask, base.folder, finetuned.folder), encoding="utf-8")
        return Restored(target, None, True)


def save_masks(pair: MatchedPair, recipes: Sequence[Recipe], out: Path) -> None:
    """Write which elements each recipe restores, `ratio-20.mask.safetensors` and so on.

    They lie beside the checkpoints, as loaders take every safetensors file in a folder.
    """
    with locked(out):
        for recipe in recipes:

            def chosen(name: str, recipe: Recipe = recipe) -> NDArray[np.bool_]:
                return chosen_elements(recipe, name, pair.base, pair.finetuned)

            write_mask(
                out / f"{folder_name(recipe.ratio)}.mask.safetensors",
                {name: pair.finetuned.tensors[name].elements for name in recipe.names},
                chosen,
                {"format": "sftknow-mask", "version": "1", "recipe": recipe.digest},
            )


def _write(job: Job, progress: Progress, threads: int | None) -> None:
    total = sum(tensor.elements for tensor in job.finetuned.tensors.values())
    write_weights(job, threads=threads, progress=lambda done: progress("Writing", done, total))


def _is_there(target: Path, recipe: Recipe) -> bool:
    if not target.exists():
        return False
    known = target / RECIPE_FILE
    if known.is_file() and Recipe.read(known).digest == recipe.digest:
        return True
    raise SettingsError(
        f"{target} is there already and is not this restoration. Choose another --out or remove it."
    )


def _check_mask(mask: Mask, name: str, base: ModelWeights, finetuned: ModelWeights) -> None:
    for model in (base, finetuned):
        if name not in model.tensors:
            raise CheckpointError(
                f"{mask.path} has a mask for '{name}', a tensor that {model.folder} lacks."
            )
        if model.tensors[name].dtype not in HELD_AS:
            raise CheckpointError(
                f"{model.folder}: tensor '{name}' has the type {model.tensors[name].dtype}, which "
                "cannot be restored."
            )
    there, wanted = base.tensors[name], finetuned.tensors[name]
    mask.check(name, wanted.elements)
    grown = there.shape[1:] == wanted.shape[1:] and there.elements < wanted.elements
    if there.shape != wanted.shape and not grown:
        raise CheckpointError(
            f"Tensor '{name}' has shape {list(wanted.shape)}, but {list(there.shape)} in the base "
            f"{base.folder}: give the base for which the mask was made."
        )
    if grown and mask.bits(name, there.elements, wanted.elements - there.elements).any():
        raise CheckpointError(
            f"{mask.path} restores elements of '{name}' that the base {base.folder} does not have."
        )
