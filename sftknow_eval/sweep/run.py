"""Evaluate a fine-tune at every ratio in one engine that is never restarted.

All recipes come from one pass over the files. The engine loads the first ratio that is not
finished; from there on its weights are swapped in place. Each ratio's results are written
before the next swap, so that a sweep that was killed goes on where it was. Several sets of
facts, such as those of the dev and of the test split, share each swap and their batches.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest, installed_versions, locked, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.engines import quiet_lm_eval
from sftknow_eval.evaluation.facts_file import FACTS_NAME, write_facts
from sftknow_eval.evaluation.results import Outcome, scores
from sftknow_eval.mastery.backends import engine_versions
from sftknow_eval.restoration.on_load import Choice
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.sweep.choose import write_choice
from sftknow_eval.sweep.engine import LiveEngine
from sftknow_eval.sweep.points import (
    POINT_FORMAT,
    POINT_NAME,
    finished_point,
    of_changed,
    point_folder,
    same_models,
)
from sftknow_eval.sweep.questions import FactQuestions, OtherTasks
from sftknow_eval.sweep.request import FactSet, SweepRequest

logger = logging.getLogger(__name__)

SWEEP_FORMAT = "sftknow-sweep/1"
SWEEP_NAME = "sweep.json"

Progress = Callable[[str], None]


def _silent(line: str) -> None:
    """Say nothing."""


def sweep(request: SweepRequest, out: Path, progress: Progress = _silent) -> dict[str, Any]:
    """Evaluate every ratio and write `sweep.json`, a folder for each ratio, and the curve.

    Raises:
        SettingsError: options that do not fit, or results of other settings in the folder.
        CheckpointError: a swap failed, or a worker computes with other weights; the engine is
            ended, and finished ratios are kept.
    """
    return _Run(request, out, progress).summaries({"": FactSet()}, curves=True)[""]


def sweep_sets(
    request: SweepRequest,
    sets: Mapping[str, FactSet],
    out: Path,
    progress: Progress = _silent,
    *,
    curves: bool = True,
) -> dict[str, dict[str, Any]]:
    """Evaluate every ratio on several sets of facts, with one swap a ratio.

    The folder `out/NAME` of each set holds what `sweep` writes; the recipes lie in
    `out/recipes`. With a set named `dev`, `choice.json` has the ratio chosen on it.

    Args:
        request: its metadata is common to all sets.
        sets: by name.
        out: folder for all of them.
        progress: told what is done.
        curves: draw each set's curve.

    Returns:
        What each set's `sweep.json` holds.

    Raises:
        SettingsError, CheckpointError: as for `sweep`.
    """
    if not sets or not request.fact_tasks:
        raise SettingsError("Sets of facts need a name each, and a task that asks facts.")
    return _Run(request, out, progress).summaries(sets, curves=curves)


class _Set:
    """One set of facts: its questions, and what earlier runs left of it."""

    def __init__(self, name: str, chosen: FactSet, request: SweepRequest, out: Path) -> None:
        self.name, self.chosen, self.request, self.folder = name, chosen, request, out / name
        asks = bool(request.fact_tasks)
        self.questions = FactQuestions(request, chosen.metadata) if asks else None
        self.task = self.questions.data.record if self.questions else None
        self._facts = digest([self.task, self.questions.fact_ids if self.questions else None])
        self._wanted: set[float] = set()
        self.points: dict[float, dict[str, Any]] = {}

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """Return all that decides a ratio's results; results of other settings are not kept."""
        request = self.request
        return {
            "recipe": recipe.digest,
            "facts": self._facts,
            "tasks": sorted(request.tasks),
            "backend": request.backend,
            "engine_args": dict(request.engine_args),
            "batch_size": request.batch_size,
            "num_fewshot": request.num_fewshot,
            "limit": request.limit,
        }

    def find(self, recipes: Sequence[Recipe], same: Mapping[float, float]) -> None:
        """Settle which ratios are wanted, and take what earlier runs finished of them."""
        taken = [recipe.ratio for recipe in recipes if self.chosen.takes(recipe.ratio)]
        self._wanted = {same.get(ratio, ratio) for ratio in taken}
        for recipe in recipes:
            if recipe.ratio not in self._wanted:
                continue
            if found := finished_point(self.folder, recipe.ratio, self.settings(recipe)):
                self.points[recipe.ratio] = found

    def lacks(self, ratio: float) -> bool:
        """Say whether a ratio is still to be evaluated."""
        return ratio in self._wanted and ratio not in self.points

    def keep(
        self,
        recipe: Recipe,
        restoration: Mapping[str, Any],
        outcomes: Sequence[Outcome] | None,
        tasks: Mapping[str, Any],
    ) -> None:
        """Write what a model answered, the results last."""
        folder = point_folder(self.folder, recipe.ratio)
        if outcomes is not None:
            write_facts(folder / FACTS_NAME, outcomes)
        point = {
            "format": POINT_FORMAT,
            "ratio": recipe.ratio,
            "same_as": None,
            "of_changed": of_changed(recipe),
            "restored": recipe.restored,
            "effective_restored": recipe.effective_restored,
            "changed_fraction": recipe.changed_fraction,
            "saturated": recipe.saturated,
            "restoration": dict(restoration),
            "settings": self.settings(recipe),
            "scores": None if outcomes is None else scores(outcomes),
            "tasks": dict(tasks),
            "versions": engine_versions(self.request.backend) | installed_versions("lm_eval"),
        }
        write_json(folder / POINT_NAME, point)
        self.points[recipe.ratio] = point


class _Run:
    """One sweep."""

    def __init__(self, request: SweepRequest, out: Path, progress: Progress) -> None:
        if not request.tasks:
            raise SettingsError("Name at least one task with --tasks, such as sftknow_cbqa.")
        self._request, self._out, self._progress = request, out, progress

    def summaries(self, sets: Mapping[str, FactSet], *, curves: bool) -> dict[str, dict[str, Any]]:
        """Evaluate what is not finished, and write each set's table."""
        request = self._request
        asked = [_Set(name, chosen, request, self._out) for name, chosen in sets.items()]
        self._progress("Ranking the weights once for all ratios")
        choice = Choice(base=request.base, ratio=0, **request.restoration)
        revision = request.engine_args.get("revision")
        recipes = choice.recipes(request.finetuned, revision, sorted(set(request.ratios)))
        same = same_models(recipes)
        with locked(self._out):
            for recipe in recipes:
                recipe.write(_recipe_path(self._out, recipe))
            # All are looked at first: a folder of other settings is said before the engine starts.
            for each in asked:
                each.find(recipes, same)
            self._evaluate(asked, recipes, same)
            found = {each.name: self._written(each, recipes, same, curves) for each in asked}
            write_choice(self._out, found)
        return found

    def _evaluate(
        self, asked: Sequence[_Set], recipes: Sequence[Recipe], same: Mapping[float, float]
    ) -> None:
        with quiet_lm_eval(), contextlib.ExitStack() as stack:
            live = LiveEngine(self._request, self._out / "merged", self._progress)
            engine = stack.enter_context(live)
            others: OtherTasks | None = None
            for recipe in recipes:
                name = f"{recipe.ratio:g}%"
                if recipe.ratio in same:
                    why = "all changed weights are back" if recipe.saturated else "the same weights"
                    twin = f"{same[recipe.ratio]:g}%"
                    self._progress(f"{name}: skipped, the same model as {twin} ({why})")
                elif not (todo := [each for each in asked if each.lacks(recipe.ratio)]):
                    self._progress(f"{name}: finished before")
                else:
                    # Made before the engine, so that an unknown task is said at once.
                    others = others or OtherTasks(self._request)
                    _hide_load_bars()
                    record = engine.load(_recipe_path(self._out, recipe), name)
                    self._progress(f"{name}: evaluating")
                    self._point(engine.model, others, todo, recipe, record)

    def _point(
        self,
        model: Any,
        others: OtherTasks,
        todo: Sequence[_Set],
        recipe: Recipe,
        record: Mapping[str, Any],
    ) -> None:
        """Ask all sets in the same batches, and keep what each of them gave."""
        requests = [each.questions.requests(model) if each.questions else [] for each in todo]
        together = [request for part in requests for request in part]
        texts = iter(model.generate_until(together) if together else [])
        tasks = others.ask(model)
        for each, part in zip(todo, requests, strict=True):
            own = [next(texts) for _ in part]
            outcomes = each.questions.outcomes(own) if each.questions else None
            each.keep(recipe, record, outcomes, tasks)

    def _written(
        self,
        each: _Set,
        recipes: Sequence[Recipe],
        same: Mapping[float, float],
        curves: bool,
    ) -> dict[str, Any]:
        request = self._request
        points = []
        for recipe in recipes:
            ratio = recipe.ratio
            if ratio in each.points:
                points.append(each.points[ratio])
            elif ratio in same and same[ratio] in each.points:
                points.append(
                    {"ratio": ratio, "same_as": same[ratio], "of_changed": of_changed(recipe)}
                )
        summary = {
            "format": SWEEP_FORMAT,
            "task": each.task,
            "points": points,
            "base": request.base,
            "finetuned": request.finetuned,
            "backend": request.backend,
        }
        write_json(each.folder / SWEEP_NAME, summary)
        if curves:
            from sftknow_eval.sweep.plots import save_curve

            save_curve([point for point in points if point["same_as"] is None], each.folder)
        return summary


def _recipe_path(out: Path, recipe: Recipe) -> Path:
    return out / "recipes" / f"ratio-{recipe.ratio:g}.json"


def _hide_load_bars() -> None:
    """Keep transformers from drawing a bar for every swap."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
