"""Actions that make something: a world, a mastery table, a fine-tune, an interpolated model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import TooFewFacts
from sftknow_eval.study.job import Job, LeftOut
from sftknow_eval.study.launching import launched

if TYPE_CHECKING:
    from sftknow_eval.mastery.table import MasteryTable


def world(job: Job) -> bool:
    """Make a mini-world."""
    from sftknow_eval.world.build import build_world
    from sftknow_eval.world.settings import world_settings

    settings = world_settings(job.settings["size"], job.settings["seed"])
    return build_world(job.out, settings, job.progress)[1]


def probe(job: Job) -> None:
    """Measure what the base knows, on all cores that are free."""
    import torch

    from sftknow_eval.mastery.job import prepare_probe

    settings = dict(job.settings)
    prepared = prepare_probe(
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
        prepared.run(
            job.out, on_progress=lambda done: job.progress("facts", done.facts_done, done.facts)
        )
    finally:
        torch.set_num_threads(threads)


def train(job: Job) -> bool:
    """Train as a strategy says, on facts or on rows of another task.

    Raises:
        LeftOut: the stratum has fewer facts than asked for.
    """
    from sftknow_eval.training.run import TrainRequest, train_strategy
    from sftknow_eval.training.strategy import Strategy

    settings = job.settings
    if settings.get("launch"):
        return launched(job)
    prompts = job.inputs.get("prompts")
    request = TrainRequest(
        base=job.inputs["base"],
        out=job.out,
        revision=settings["revision"],
        stratum=None if prompts else settings["stratum"],
        n=settings["n"],
        seed=settings["draw"],
        training=settings["training"],
        prompts=Path(prompts) if prompts else None,
    )
    dataset, table = (None, None) if prompts else job.facts()
    try:
        done = train_strategy(
            Strategy.model_validate(settings["strategy"]),
            request,
            dataset,
            table,
            on_step=lambda done, total, _: job.progress("steps", done, total),
        )
    except TooFewFacts as error:
        raise LeftOut(_too_few(table, settings["stratum"], settings["n"])) from error
    return done.reused


def _too_few(table: MasteryTable | None, stratum: int | str, n: int | str) -> str:
    assert table is not None
    columns = (table.rows[name].to_pylist() for name in ("split", "domain", "stratum"))
    there = sum(
        split == "train" and domain == "id" and stratum in ("all", found)
        for split, domain, found in zip(*columns, strict=True)
    )
    where = "all strata" if stratum == "all" else f"stratum {stratum}"
    return f"{n} training facts of {where} were asked for; the mastery table has {there}."


def echo(job: Job) -> None:
    """Make the rows and the lm-eval task of the mini-world's task that is not about facts."""
    from sftknow_eval.study.echo import write_echo

    job.out.mkdir(parents=True, exist_ok=True)  # in place, as the task names its own files
    write_echo(job.inputs["data"], job.settings["n"], job.settings["seed"], job.out)


def interpolate(job: Job) -> None:
    """Write the model at the weight that was chosen on dev."""
    from sftknow_eval.training.interpolate import interpolate as write

    weight = read_json(Path(job.inputs["choice"]) / "curve.json")["choice"]["weight"]
    with tempfile.TemporaryDirectory(dir=job.out) as scratch:
        made = write(job.inputs["base"], job.inputs["model"], (weight,), Path(scratch))
        for file in made[0].folder.iterdir():
            file.rename(job.out / file.name)
