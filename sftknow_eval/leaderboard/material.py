"""What a row is made from, read from the folders that `sftknow eval` and `sftknow study` write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import DataError, SettingsError
from sftknow_eval.evaluation.facts_file import FACTS_NAME
from sftknow_eval.evaluation.summary import RESULTS_FORMAT, RESULTS_NAME
from sftknow_eval.leaderboard.manifest_parts import CurvePoint, Regime
from sftknow_eval.record import TrainingRecord, read_record
from sftknow_eval.restoration.output import RECIPE_FILE
from sftknow_eval.restoration.recipe import Recipe


class Answer(NamedTuple):
    """What a model answered to a fact, and the verdict `alias_acc`."""

    domain: str
    prompt: str
    output: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedMaterial:
    """One evaluated model.

    Attributes:
        seed: that drew its facts and ordered its batches.
        results: of `sftknow eval`.
        answers: of the model to the test facts, by fact id.
        model: its name as evaluated; `folder` where it is here.
        record: of its training, or of the fine-tune that it is made from.
        recipe: what was restored, in memory or on disk.
        drift: top-10 KL by fact id, on the protocol's facts.
        curve: of a sweep over ratios.
        chosen: percent restored or of the way, where that was chosen.
    """

    seed: int
    results: Mapping[str, Any]
    answers: Mapping[str, Answer]
    model: str
    folder: Path | None
    record: TrainingRecord | None
    recipe: Recipe | None = None
    drift: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    chosen: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMaterial:
    """The seeds of one row.

    Attributes:
        strategy: its name on the board.
        strategy_file: name in `configs/strategies/` or path of the YAML file that says how it is
            made again; None for a checkpoint.
        regime: what data it was trained on.
        run: name of the row within its strategy.
        base_results: folder of results that hold the base's own answers.
    """

    strategy: str
    strategy_file: str | None
    regime: Regime
    run: str
    seeds: Sequence[SeedMaterial]
    base_results: Path


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results in a folder of `sftknow eval`.

    Raises:
        SettingsError: it is not one, or not of the whole test split.
        DataError: a file is not readable.
    """
    path = folder / RESULTS_NAME
    if not path.is_file() or not (folder / FACTS_NAME).is_file():
        raise SettingsError(
            f"{folder} holds no results: {RESULTS_NAME} and {FACTS_NAME} of 'sftknow eval', or the "
            "study.json of 'sftknow study', were expected."
        )
    results: dict[str, Any] = read_json(path)
    if results.get("format") != RESULTS_FORMAT:
        raise SettingsError(
            f"{path} has the format {results.get('format')!r}; '{RESULTS_FORMAT}' of 'sftknow "
            "eval' was expected."
        )
    task = results["task"]
    if task["split"] != "test" or results["finetuned"]["limit"] is not None:
        raise SettingsError(
            f"{folder} is about the {task['split']} facts"
            f"{', limited' if results['finetuned']['limit'] is not None else ''}; a row needs the "
            "whole test split: run 'sftknow eval' without --limit, --facts and --split."
        )
    return results


def read_answers(folder: Path, model: str) -> dict[str, Answer]:
    """Return what a model answered, by fact id.

    Args:
        folder: of the results.
        model: `finetuned` or `base`.

    Raises:
        DataError: the file is not readable, or lacks that model.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FACTS_NAME
    names = [
        "fact_id",
        "domain",
        *(f"{model}_{part}" for part in ("prompt", "output", "alias_acc")),
    ]
    try:
        rows = pq.ParquetFile(path).read(names)
        columns = [rows.column(name).to_numpy().tolist() for name in names]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} holds no answers of the {model} model: {error}") from error
    ids, *parts = columns
    return {name: Answer(*answer) for name, *answer in zip(ids, *parts, strict=True)}


def eval_seed(folder: Path, place: int) -> SeedMaterial:
    """Return the seed in a folder of `sftknow eval`.

    Args:
        folder: of the results.
        place: its number among the folders given, where no record states a seed.
    """
    results = read_results(folder)
    name = str(results["finetuned"]["model"])
    model = Path(name) if Path(name).is_dir() else None
    record = read_record(model) if model else None
    stored = model / RECIPE_FILE if model else None
    recipe = recipe_of(results)
    if recipe is None and stored and stored.is_file():
        recipe = Recipe.read(stored)
    return SeedMaterial(
        seed=record.seed if record else place,
        results=results,
        answers=read_answers(folder, "finetuned"),
        model=name,
        folder=model,
        record=record,
        recipe=recipe,
        chosen=recipe.ratio if recipe else None,
    )


def recipe_of(results: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe by which the evaluated model was restored as it was loaded, if it was.

    The same files give the same recipe again.

    Raises:
        SettingsError: it was restored by a mask, which names no counts.
    """
    from sftknow_eval.restoration.on_load import Choice

    arguments, model = results["finetuned"]["engine_args"], results["finetuned"]["model"]
    if not {"ratio", "recipe", "mask"} & arguments.keys():
        return None
    choice, _ = Choice.taken_from(arguments)
    if choice.recipe is not None:
        return Recipe.read(Path(choice.recipe))
    if choice.ratio is None:
        raise SettingsError(f"{model} was restored by a mask; restore it by a recipe or a ratio.")
    return choice.recipes(str(model), arguments.get("revision"), [choice.ratio])[0]


def regime_of(record: TrainingRecord | None) -> Regime:
    """Return the data regime that a training record states; `open` without one."""
    if record is None or record.stratum is None:
        return Regime(kind="open")
    return regime(record.stratum, record.n)


def regime(stratum: int | str | None, n: int | str | None) -> Regime:
    """Return the regime of a study's run, which names stratum and number as the study does."""
    if stratum is None:
        return Regime(kind="open")
    number = n if isinstance(n, int) else None
    if isinstance(stratum, int):
        return Regime(kind="divided", stratum=stratum, n=number)
    return Regime(kind="mixed", n=number)


def slug(name: str) -> str:
    """Return a name that a folder of the leaderboard may have, made from any other."""
    plain = re.sub(r"[^a-z0-9_.-]+", "-", name.lower())
    plain = re.sub(r"\.{2,}", ".", plain).strip("-_.")[:64].rstrip("-_.")
    if not plain:
        raise SettingsError(f"No name can be made from {name!r}; give one with --run.")
    return plain
