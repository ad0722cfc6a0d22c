"""Evaluate a fine-tune at every ratio in one engine that is never restarted.

All recipes come from one pass over the files. The engine loads the first ratio that is not
finished; from there on its weights are swapped in place. Each ratio's results are written
before the next swap, so that a sweep that was killed goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest, installed_versions, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.documents import load_task_data
from sftknow_eval.evaluation.engines import quiet_lm_eval, start_engine
from sftknow_eval.evaluation.facts_file import FACTS_NAME, write_facts
from sftknow_eval.evaluation.install import TASK_FOLDER, tasks_path
from sftknow_eval.evaluation.results import outcomes_of, scores
from sftknow_eval.evaluation.run import FEWSHOT_SEED
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.backends import Backend, engine_versions
from sftknow_eval.restoration.lm_eval_models import make_known
from sftknow_eval.restoration.on_load import Choice
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.writer import locked
from sftknow_eval.sweep.points import (
    POINT_FORMAT,
    POINT_NAME,
    finished_point,
    of_changed,
    point_folder,
    same_models,
    task_metrics,
)

logger = logging.getLogger(__name__)

SWEEP_FORMAT = "sftknow-sweep/1"
SWEEP_NAME = "sweep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What to sweep over, and how the model is asked.

    Attributes:
        base, finetuned: local folder or hub id.
        ratios: percent, each once.
        tasks: of lm-eval, ours or any others.
        metadata: what lm-eval's `--metadata` would hold.
        restoration: further arguments of `on_load.Choice`: region, layers, order, ...
        engine_args: further arguments of lm-eval's model class.
        num_fewshot: None for each task's own.
        limit: at most this many documents of each task.
        include_path: folder with task files of the user's own.
    """

    base: str
    finetuned: str
    ratios: Sequence[float]
    tasks: Sequence[str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    restoration: Mapping[str, Any] = field(default_factory=dict)
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    include_path: Path | None = None

    @property
    def asks_facts(self) -> bool:
        """Whether our own tasks are among those asked for."""
        return any(task.startswith(TASK_FOLDER) for task in self.tasks)

    @property
    def task_metadata(self) -> dict[str, Any]:
        """Return what the tasks see: the model's arguments and the metadata."""
        return {"pretrained": self.finetuned, "base": self.base, **self.metadata}


def sweep(
    request: SweepRequest,
    out: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Evaluate every ratio and write `sweep.json`, a folder for each ratio, and the curve.

    Raises:
        SettingsError: options that do not fit, or results of other settings in the folder.
        CheckpointError: a swap failed, or a worker computes with other weights; the engine is
            ended, and finished ratios are kept.
    """
    from sftknow_eval.sweep.plots import save_curve

    if not request.tasks:
        raise SettingsError("Name at least one task with --tasks, such as sftknow_cbqa.")
    facts = load_task_data(read_settings(request.task_metadata)) if request.asks_facts else None
    progress("Ranking the weights once for all ratios")
    choice = Choice(base=request.base, ratio=0, **request.restoration)
    revision = request.engine_args.get("revision")
    recipes = choice.recipes(request.finetuned, revision, sorted(set(request.ratios)))
    with locked(out):
        for recipe in recipes:
            recipe.write(_recipe_path(out, recipe))
        run = _Run(request, out, recipes, facts.record if facts else None, progress)
        points = run.points()
        names = {"base": request.base, "finetuned": request.finetuned}
        summary = {"format": SWEEP_FORMAT, "task": run.task, "points": points, **names}
        summary["backend"] = request.backend
        write_json(out / SWEEP_NAME, summary)
        save_curve([point for point in points if point["same_as"] is None], out)
    return summary


def _recipe_path(out: Path, recipe: Recipe) -> Path:
    return out / "recipes" / f"ratio-{recipe.ratio:g}.json"


def _hide_load_bars() -> None:
    """Keep transformers from drawing a bar for every swap."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class _Run:
    """One sweep: its recipes, and its engine once a ratio needs it."""

    def __init__(
        self,
        request: SweepRequest,
        out: Path,
        recipes: Sequence[Recipe],
        task: dict[str, Any] | None,
        progress: Callable[[str], None],
    ) -> None:
        self._request, self._out, self._recipes = request, out, recipes
        self.task = task
        self._progress = progress
        self._engine: Any = None
        self._manager: Any = None

    def points(self) -> list[dict[str, Any]]:
        """Return every ratio's results, from earlier runs where they are."""
        same = same_models(self._recipes)
        # All are looked at first: a folder of other settings is said before the engine starts.
        done = {
            recipe.ratio: finished_point(self._out, recipe.ratio, self._settings(recipe))
            for recipe in self._recipes
            if recipe.ratio not in same
        }
        points = []
        with quiet_lm_eval():
            _hide_load_bars()
            if not all(done.values()):
                self._tasks()  # an unknown task is said before the engine starts
            try:
                for recipe in self._recipes:
                    points.append(self._point(recipe, same, done))
            finally:
                if self._engine is not None:
                    self._engine.close()
        return points

    def _point(
        self,
        recipe: Recipe,
        same: Mapping[float, float],
        done: Mapping[float, dict[str, Any] | None],
    ) -> dict[str, Any]:
        ratio = recipe.ratio
        if ratio in same:
            why = "all changed weights are back" if recipe.saturated else "the same weights"
            self._progress(f"{ratio:g}%: skipped, the same model as {same[ratio]:g}% ({why})")
            return {"ratio": ratio, "same_as": same[ratio], "of_changed": of_changed(recipe)}
        if found := done[ratio]:
            self._progress(f"{ratio:g}%: finished before")
            return found
        restoration = self._load(recipe)
        self._progress(f"{ratio:g}%: evaluating")
        return self._evaluated(recipe, restoration)

    def _load(self, recipe: Recipe) -> dict[str, Any]:
        """Get the engine to hold a recipe's model; return the record of it."""
        request = self._request
        choice = Choice(base=request.base, recipe=str(_recipe_path(self._out, recipe)))
        if self._engine is None:
            self._progress(f"{recipe.ratio:g}%: starting the engine")
            name = f"sftknow-{request.backend}"
            make_known(name)
            arguments = {
                "pretrained": request.finetuned,
                **choice.given(),
                **request.engine_args,
            }
            self._engine = start_engine(
                request.backend, arguments, request.batch_size, registered=name
            )
        else:
            self._progress(f"{recipe.ratio:g}%: swapping weights")
            self._engine.restore(choice)
        record: dict[str, Any] = self._engine.get_model_info()["restoration"]
        if record["restoration"] != recipe.digest:
            raise SettingsError(
                f"The engine holds another restoration than that of {recipe.ratio:g}%."
            )
        return record

    def _evaluated(self, recipe: Recipe, restoration: Mapping[str, Any]) -> dict[str, Any]:
        request = self._request
        results = self._lm_eval()
        others = [task for task in request.tasks if not task.startswith(TASK_FOLDER)]
        folder = point_folder(self._out, recipe.ratio)
        found = None
        if request.asks_facts:
            outcomes = outcomes_of(results)
            found = scores(outcomes)
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
            "settings": self._settings(recipe),
            "scores": found,
            "tasks": task_metrics(results, others),
            "versions": engine_versions(request.backend) | installed_versions("lm_eval"),
        }
        write_json(folder / POINT_NAME, point)
        return point

    def _settings(self, recipe: Recipe) -> dict[str, Any]:
        """Return all that decides a ratio's results; results of other settings are not kept."""
        request = self._request
        return {
            "recipe": recipe.digest,
            "facts": digest(self.task),
            "tasks": sorted(request.tasks),
            "backend": request.backend,
            "engine_args": dict(request.engine_args),
            "batch_size": request.batch_size,
            "num_fewshot": request.num_fewshot,
            "limit": request.limit,
        }

    def _lm_eval(self) -> Any:
        from lm_eval import evaluate

        request = self._request
        loaded = self._tasks()
        for name, task in loaded["tasks"].items():
            ours = name.startswith(TASK_FOLDER)
            if request.num_fewshot is not None or ours:
                task.set_config(key="num_fewshot", value=request.num_fewshot or 0)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        chat = request.metadata.get("style") == "chat"
        return evaluate(
            lm=self._engine,
            task_dict=loaded,
            limit=request.limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            log_samples=True,
        )

    def _tasks(self) -> Any:
        if self._manager is None:
            self._manager = _task_manager(self._request)
        return self._manager.load(list(self._request.tasks))


def _task_manager(request: SweepRequest) -> Any:
    """Return a task manager that knows the tasks asked for."""
    from lm_eval.tasks import TaskManager

    own = [str(request.include_path)] if request.include_path else []
    folders = [str(tasks_path()), *own]
    metadata = request.task_metadata
    # lm-eval's own index takes many seconds, ours none.
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    if set(request.tasks) <= set(manager.all_tasks):
        return manager
    manager = TaskManager(include_path=folders, metadata=metadata)
    if unknown := sorted(set(request.tasks) - set(manager.all_tasks)):
        raise SettingsError(
            f"lm-eval knows no task '{unknown[0]}'. 'sftknow lm-eval ls tasks' lists those it "
            "knows; --include-path DIR adds your own."
        )
    return manager
