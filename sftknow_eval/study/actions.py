"""What each kind of step does, in a worker: calls into the other rooms, and nothing else.

An action gets the locations of its inputs, its settings and the folder to be made. Those that
write whole folders or go on where they stopped do so in place; for all others the folder
appears only when they are finished.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import atomic_folder
from sftknow_eval.errors import SftknowError
from sftknow_eval.study.step import INSIDE

if TYPE_CHECKING:
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.table import MasteryTable

Progress = Callable[[str, int, int], None]


class LeftOut(SftknowError):
    """A run that cannot be made from these facts; the study goes on without it."""


@dataclass(frozen=True)
class Job:
    """A step as its action sees it.

    Attributes:
        inputs: locations by role, as paths or hub ids.
        out: the folder to be made.
        root: the study's folder.
        threads: how many cores the step may use.
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    out: Path
    root: Path
    threads: int
    progress: Progress

    @property
    def metadata(self) -> dict[str, str]:
        """Return what tells the tasks which facts and strata are meant."""
        return {name: self.inputs[name] for name in ("mastery", "data") if name in self.inputs}


def perform(message: Mapping[str, Any], root: Path, progress: Progress) -> bool:
    """Do the step that a message describes; return whether it was found to be done already."""
    inputs = {
        role: str(root / place.removeprefix(INSIDE)) if place.startswith(INSIDE) else place
        for role, place in message["inputs"].items()
    }
    out = root / message["name"]
    job = Job(inputs, message["settings"], out, root, message["threads"], progress)
    action, in_place = _ACTIONS[message["kind"]]
    if in_place:
        out.parent.mkdir(parents=True, exist_ok=True)
        return bool(action(job))
    if out.exists():
        shutil.rmtree(out)
    with atomic_folder(out) as partial:
        return bool(action(Job(inputs, job.settings, partial, root, job.threads, progress)))


def _world(job: Job) -> bool:
    from sftknow_eval.world.build import build_world
    from sftknow_eval.world.settings import world_settings

    settings = world_settings(job.settings["size"], job.settings["seed"])
    return build_world(job.out, settings, job.progress)[1]


def _probe(job: Job) -> None:
    import torch

    from sftknow_eval.mastery.job import prepare_probe

    settings = dict(job.settings)
    probe = prepare_probe(
        job.inputs["base"],
        data=job.inputs.get("data"),
        backend=settings.pop("backend"),
        revision=settings.pop("revision"),
        engine_args=settings.pop("engine_args"),
        max_tokens=settings.pop("max_new_tokens"),
        **settings,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        probe.run(
            job.out, on_progress=lambda done: job.progress("facts", done.facts_done, done.facts)
        )
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=4)
def _facts(data: str | None, mastery: str) -> tuple[Dataset, MasteryTable]:
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.table import MasteryTable

    return open_dataset(data), MasteryTable.read(mastery)


def _train(job: Job) -> None:
    from sftknow_eval.training.finetune import FinetuneRequest, finetune
    from sftknow_eval.training.sft import TrainSettings

    dataset, table = _facts(job.inputs.get("data"), job.inputs["mastery"])
    stratum, n = job.settings["stratum"], job.settings["n"]
    _check_enough(dataset, table, stratum, n)
    request = FinetuneRequest(
        base=job.inputs["base"],
        out=job.out,
        revision=job.settings["revision"],
        stratum=stratum,
        n=n,
        seed=job.settings["draw"],
        settings=TrainSettings(**job.settings["training"]),
    )
    finetune(
        request, dataset, table, on_step=lambda done, total, _: job.progress("steps", done, total)
    )


def _check_enough(dataset: Dataset, table: MasteryTable, stratum: int | str, n: int | str) -> None:
    """Refuse a cell whose stratum is too small.

    Raises:
        LeftOut: it is; both numbers are named.
    """
    strata = table.strata_of(dataset.facts("train", domain="id"))
    there = sum(stratum in ("all", found) for found in strata.values())
    wanted = 1 if n == "all" else int(n)
    if there < wanted:
        where = "all strata" if stratum == "all" else f"stratum {stratum}"
        raise LeftOut(f"{wanted} training facts of {where} were asked for; there are {there}.")


def _evaluate(job: Job) -> bool:
    from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate

    settings = job.settings
    done = evaluate(
        EvaluationRequest(
            finetuned=job.inputs["model"],
            base=job.inputs["base"],
            metadata={**job.metadata, "split": settings["split"]},
            style=settings.get("style"),
            backend=settings["backend"],
            engine_args=settings["engine_args"],
            batch_size=settings["batch_size"],
            limit=settings["limit"],
        ),
        job.out,
    )
    return done.finetuned.reused


def _sweep(job: Job) -> None:
    from sftknow_eval.sweep.run import SweepRequest, sweep

    settings = job.settings
    splits = settings["splits"]
    for split in splits:
        request = SweepRequest(
            base=job.inputs["base"],
            finetuned=job.inputs["model"],
            ratios=settings["ratios"],
            tasks=["sftknow_cbqa"],
            metadata={**job.metadata, "split": split},
            backend=settings["backend"],
            engine_args=settings["engine_args"],
            batch_size=settings["batch_size"],
            limit=settings["limit"],
        )
        sweep(request, job.out / split)


def _weights(job: Job) -> None:
    from sftknow_eval.artifacts import write_json
    from sftknow_eval.drift.change import measure
    from sftknow_eval.drift.report import CURVE_RATIOS, report
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.regions import Region
    from sftknow_eval.restoration.run import ModelName, opened

    ratios = sorted({*job.settings["ratios"], *CURVE_RATIOS})
    with opened(ModelName(job.inputs["base"]), ModelName(job.inputs["model"])) as models:
        pair = match(*models, Region())
        change = measure(*models, pair.tensors, ratios, statistics=True)
    write_json(job.out / "change.json", report(change).as_json())


_ACTIONS: dict[str, tuple[Callable[[Job], bool | None], bool]] = {
    "world": (_world, True),
    "probe": (_probe, True),
    "train": (_train, True),
    "evaluate": (_evaluate, False),
    "sweep": (_sweep, True),
    "weights": (_weights, False),
}
IN_PLACE = frozenset(kind for kind, (_, in_place) in _ACTIONS.items() if in_place)
