"""Actions that ask models: evaluations, sweeps, layer ranges, token drift, changes of weights."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import atomic_path, read_json, write_json
from sftknow_eval.study.job import Job

if TYPE_CHECKING:
    from sftknow_eval.sweep.request import SweepRequest

LAYERS_FORMAT = "sftknow-layers/1"
CURVE_FORMAT = "sftknow-interpolation/1"


def evaluate(job: Job) -> bool:
    """Ask a model a split's facts."""
    style = job.settings.get("style")
    done = job.ask(job.inputs["model"], job.settings["split"], job.out, style=style)
    return done.finetuned.reused


def restored(job: Job) -> bool:
    """Ask a fine-tune with weights given back, at the ratio that was chosen on dev."""
    choice = read_json(Path(job.inputs["choice"]) / "choice.json")
    names = ("order", "order_seed", "region")
    how = {name: job.settings[name] for name in names} | {"ratio": choice["ratio"]}
    done = job.ask(job.inputs["model"], job.settings["split"], job.out, restored=how)
    write_json(job.out / "choice.json", choice)
    return done.finetuned.reused


def sweep(job: Job) -> None:
    """Ask a fine-tune at every ratio of restored weights, in one engine; choose one on dev."""
    from sftknow_eval.sweep.request import FactSet
    from sftknow_eval.sweep.run import sweep_sets

    sets = {split: FactSet({"split": split}) for split in job.settings["splits"]}
    if own := job.settings["own_facts"]:
        ids = _own_facts(job, job.out / "own-facts.txt")
        sets["train"] = FactSet({"split": "train", "facts": str(ids)}, ratios=tuple(own))
    points = len(job.settings["ratios"])
    done = itertools.count()

    def progress(line: str) -> None:
        job.progress(line, min(next(done) // 2, points), points)

    sweep_sets(_request(job, job.settings["ratios"]), sets, job.out, progress, curves=False)


def _own_facts(job: Job, path: Path) -> Path:
    """Write the ids of the facts that a fine-tune was trained on."""
    from sftknow_eval.record import read_record

    record = read_record(job.inputs["model"])
    assert record is not None
    with atomic_path(path) as partial:
        partial.write_text("".join(f"{name}\n" for name in record.fact_ids), encoding="utf-8")
    return path


def _request(job: Job, ratios: Sequence[float]) -> SweepRequest:
    from sftknow_eval.sweep.request import SweepRequest

    return SweepRequest(
        base=job.inputs["base"],
        finetuned=job.inputs["model"],
        ratios=ratios,
        tasks=["sftknow_cbqa"],
        metadata=job.metadata,
        **job.asking,
    )


def other_task(job: Job) -> None:
    """Ask a model trained on another task that task, at every ratio of restored weights."""
    from sftknow_eval.sweep.request import SweepRequest
    from sftknow_eval.sweep.run import sweep as run

    folder = job.inputs.get("tasks")
    request = SweepRequest(
        base=job.inputs["base"],
        finetuned=job.inputs["model"],
        ratios=job.settings["ratios"],
        tasks=job.settings["tasks"],
        include_path=Path(folder) if folder else None,
        **job.asking,
    )
    run(request, job.out)


def layers(job: Job) -> None:
    """Ask a fine-tune with whole ranges of layers given back, one after the other."""
    from sftknow_eval.evaluation.engines import quiet_lm_eval
    from sftknow_eval.evaluation.facts_file import FACTS_NAME, write_facts
    from sftknow_eval.evaluation.results import scores
    from sftknow_eval.restoration.on_load import Choice
    from sftknow_eval.sweep.engine import LiveEngine
    from sftknow_eval.sweep.questions import FactQuestions

    places, ranges = job.settings["ranges"], []
    request = _request(job, [100.0])
    questions = FactQuestions(request, {"split": "test"})
    with quiet_lm_eval(), LiveEngine(request, job.out / "merged") as engine:
        for number, place in enumerate(places):
            job.progress("ranges", number, len(places))
            folder = job.out / f"layers-{place}"
            choice = Choice(base=job.inputs["base"], ratio=100, layers=place)
            recipe = folder / "recipe.json"
            choice.recipes(job.inputs["model"], None, [100.0])[0].write(recipe)
            engine.load(recipe, f"layers {place}")
            requests = questions.requests(engine.model)
            outcomes = questions.outcomes(engine.model.generate_until(requests))
            write_facts(folder / FACTS_NAME, outcomes)
            ranges.append({"layers": place, "folder": folder.name, "scores": scores(outcomes)})
    write_json(job.out / "layers.json", {"format": LAYERS_FORMAT, "ranges": ranges})


def interpolation_curve(job: Job) -> None:
    """Ask models between base and fine-tune, and choose one of them on dev."""
    from sftknow_eval.training.interpolate import interpolate

    weights, points = job.settings["weights"], []
    for number, weight in enumerate(weights):
        job.progress("weights", number, len(weights))
        folder = job.out / f"weight-{weight:g}"
        point: dict[str, Any] = {"weight": weight, "scores": {}}
        with tempfile.TemporaryDirectory(dir=job.out) as scratch:
            made = interpolate(job.inputs["base"], job.inputs["model"], (weight,), Path(scratch))
            for split in job.settings["splits"]:
                done = job.ask(str(made[0].folder), split, folder / split)
                point["scores"][split] = done.summary["scores"]["finetuned"]
        points.append(point)
    value = {"format": CURVE_FORMAT, "points": points, "choice": _best(points)}
    write_json(job.out / "curve.json", value)


def _best(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the weight with the highest in-domain mean of strata on dev; the larger of equals."""
    known = [
        (point["scores"]["dev"]["id"]["alias_acc"]["mean"]["value"] or 0.0, point["weight"])
        for point in points
    ]
    score, weight = max(known)
    why = f"highest in-domain mean of strata on dev, {100 * score:.1f}%"
    return {"weight": weight, "why": why}


def null_row(job: Job) -> None:
    """Score the base on one half of its samples, with strata from the other half."""
    from sftknow_eval.evaluation.base_again import write_base_again

    dataset, table = job.facts()
    write_base_again(table, dataset, job.out, split=job.settings["split"])


def tokens(job: Job) -> None:
    """Measure how far the fine-tune's next-token distribution moved from the base's."""
    from sftknow_eval.evaluation.tokens.measure import token_drift
    from sftknow_eval.evaluation.tokens.request import TokenDriftRequest

    request = TokenDriftRequest(
        base=job.inputs["base"],
        finetuned=job.inputs["model"],
        metadata={**job.metadata, "split": "test"},
        backend=job.settings["backend"],
        engine_args=job.settings["engine_args"],
    )
    token_drift(request, job.out)


def weights(job: Job) -> None:
    """Measure how much each weight changed."""
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
