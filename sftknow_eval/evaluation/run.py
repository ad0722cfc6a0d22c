"""One model through lm-eval on our tasks, from its Python interface.

Only our task folder is indexed, which takes milliseconds where lm-eval's own takes many
seconds, and the documents are made before the model is loaded, so that faults of the data or
the mastery table cost no waiting. Finished evaluations are kept in the cache, by the model's
weights and the very prompts it was given.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import cache_dir, digest, installed_versions
from sftknow_eval.evaluation.adapters import Adapter
from sftknow_eval.evaluation.documents import TaskData, load_task_data
from sftknow_eval.evaluation.engines import quiet_lm_eval, start_engine, stop_engine
from sftknow_eval.evaluation.facts_file import read_outcomes, write_outcomes
from sftknow_eval.evaluation.install import tasks_path
from sftknow_eval.evaluation.results import Outcome, outcomes_of
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.backends import Backend, engine_versions
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.restoration.lm_eval_models import make_known

logger = logging.getLogger(__name__)

TASK = "sftknow_cbqa"
FEWSHOT_SEED = 1234
# Part of the cache's key: outcomes are read again only in the columns of this version.
OUTCOMES_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """A model and how it is to be asked.

    Attributes:
        model: local folder or hub id.
        adapter: what `model` is, where it is an adapter and no whole model.
        metadata: what `--metadata` would hold; the style has to be in it.
        engine_args: further arguments of lm-eval's model class (`dtype`, `max_model_len`, ...).
        batch_size: as lm-eval takes it; None for the backend's default.
        limit: at most this many facts in each of the ten leaves.
    """

    model: str
    metadata: Mapping[str, Any]
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: str | None = None
    num_fewshot: int = 0
    limit: int | None = None
    adapter: Adapter | None = None

    @property
    def model_args(self) -> dict[str, Any]:
        """Return the arguments of lm-eval's model class."""
        # A model that restores weights merges an adapter by itself.
        if self.adapter is None or restores(self.engine_args):
            return {"pretrained": self.model, **self.engine_args}
        own = {k: v for k, v in self.engine_args.items() if k != "revision"}
        return {**self.adapter.model_args(self.backend), **own}

    def task_data(self) -> TaskData:
        """Return the documents; with them and the shots made, faults show before a model loads."""
        data = load_task_data(read_settings({**self.model_args, **self.metadata}))
        data.shots.draw(self.num_fewshot, FEWSHOT_SEED)
        return data

    def describe(self) -> dict[str, Any]:
        """Return what goes into the results: the model, its weights and how it was asked."""
        return {
            "model": self.model,
            "fingerprint": weight_fingerprint(locate_model(self.model, self._revision)),
            "backend": self.backend,
            "engine_args": dict(self.engine_args),
            "style": self.task_data().renderer.style,
            "num_fewshot": self.num_fewshot,
            "limit": self.limit,
            "versions": engine_versions(self.backend) | _lm_eval_version(),
            **({"adapter": self.adapter.describe()} if self.adapter else {}),
        }

    @property
    def _revision(self) -> str | None:
        revision = self.engine_args.get("revision")
        return str(revision) if revision else None


@dataclass(frozen=True, slots=True)
class ModelResult:
    """The outcomes of one model, and the record of how they came about."""

    outcomes: tuple[Outcome, ...]
    record: dict[str, Any]
    reused: bool


def evaluate_model(run: ModelRun) -> ModelResult:
    """Return the outcomes of a model on the selected facts, from the cache where they are.

    Raises:
        ModelError: the model cannot be found or started.
        DataError, TemplateError, MasteryError, SettingsError: no documents can be made.
    """
    data = run.task_data()
    record = run.describe()
    kept = cache_dir() / "evaluations" / f"{_key(run, data, record)}.parquet"
    if kept.is_file():
        logger.info("Evaluated before: %s", kept)
        return ModelResult(tuple(read_outcomes(kept)), record, reused=True)
    with quiet_lm_eval():
        engine = _engine(run)
        try:
            outcomes = outcomes_of(_evaluate(run, engine))
            # Before the engine is stopped: vLLM may take the process with it.
            write_outcomes(kept, outcomes)
        finally:
            stop_engine(engine)
    return ModelResult(tuple(outcomes), record, reused=False)


def _engine(run: ModelRun) -> Any:
    """Start a run's engine: one that restores weights where its arguments say which."""
    if not restores(run.engine_args):
        return start_engine(run.backend, run.model_args, run.batch_size)
    name = f"sftknow-{run.backend}"
    make_known(name)
    return start_engine(run.backend, run.model_args, run.batch_size, registered=name)


def restores(engine_args: Mapping[str, Any]) -> bool:
    """Return whether a model's arguments give weights back to its base (see `on_load.Choice`)."""
    return any(engine_args.get(name) is not None for name in ("ratio", "recipe", "mask"))


def task_manager(metadata: Mapping[str, Any]) -> Any:
    """Return lm-eval's task manager with our tasks only; it takes milliseconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager(
        include_path=str(tasks_path()), include_defaults=False, metadata=dict(metadata)
    )


def _key(run: ModelRun, data: TaskData, record: Mapping[str, Any]) -> str:
    asked = [(d["id"], d["prompt"], d["aliases"]) for leaf in data.leaves.values() for d in leaf]
    shots = [d["id"] for d in data.shots.draw(run.num_fewshot, FEWSHOT_SEED)]
    settings = {k: v for k, v in record.items() if k != "model"}
    return digest([OUTCOMES_FORMAT, settings, _restored_from(run), run.batch_size, asked, shots])


def _restored_from(run: ModelRun) -> list[str]:
    """Return what identifies the base and the files that a restoration names by their paths."""
    if not restores(run.engine_args):
        return []
    base = locate_model(str(run.engine_args["base"]), run.engine_args.get("base_revision"))
    files = [Path(run.engine_args[name]) for name in ("recipe", "mask") if name in run.engine_args]
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return [weight_fingerprint(base), *contents]


def _evaluate(run: ModelRun, engine: Any) -> Any:
    # What lm_eval.simple_evaluate does with an engine and tasks, without its look-ups of git
    # commits and environments, which print to the screen and are not used here.
    from lm_eval import evaluate

    loaded = task_manager({**run.model_args, **run.metadata}).load([TASK])
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=run.num_fewshot)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    chat = run.metadata.get("style") == "chat"
    return evaluate(
        lm=engine,
        task_dict=loaded,
        limit=run.limit,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        log_samples=True,
        bootstrap_iters=0,
    )


def _lm_eval_version() -> dict[str, str]:
    return installed_versions("lm_eval")
