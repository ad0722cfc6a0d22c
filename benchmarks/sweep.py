"""A sweep of 8 ratios over dev and test facts, against generating its answers alone: at most 1.15.

    OMP_NUM_THREADS=1 python benchmarks/sweep.py --folder DIR [--world DIR --probe DIR ...]

CPU time, in one process, alternating, the least of several rounds of each; the first sweep of
the process, which also loads numba's kernels, is reported beside. Generation alone is
`generate_until` on each of the same 8 models with the same requests; lm-eval's own method on
them is reported as well, and whether its answers are the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from small_world import Material, add_options, cpu_seconds, material

RATIOS = (0, 1, 3, 5, 10, 20, 40, 60)


def sweep_once(request: Any, sets: Any) -> float:
    from sftknow_eval.sweep.run import sweep_sets

    with tempfile.TemporaryDirectory() as folder:
        start = cpu_seconds()
        sweep_sets(request, sets, Path(folder), curves=False)
        return cpu_seconds() - start


def generate_once(request: Any, sets: Any) -> tuple[float, float, int]:
    """Return the CPU time of generating alone: ours, lm-eval's, and how many answers differ."""
    from lm_eval.models.huggingface import HFLM

    from sftknow_eval.restoration.on_load import Choice
    from sftknow_eval.sweep.engine import LiveEngine
    from sftknow_eval.sweep.questions import FactQuestions

    asked = [FactQuestions(request, chosen.metadata) for chosen in sets.values()]
    ours, theirs, differing = 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as folder, LiveEngine(request, Path(folder)) as engine:
        recipes = Choice(base=request.base, ratio=0).recipes(request.finetuned, None, RATIOS)
        for recipe in recipes:
            file = Path(folder, f"{recipe.ratio:g}.json")
            recipe.write(file)
            engine.load(file, str(recipe.ratio))
            requests = [r for questions in asked for r in questions.requests(engine.model)]
            start = cpu_seconds()
            one = engine.model.generate_until(requests, disable_tqdm=True)
            between = cpu_seconds()
            other = HFLM.generate_until(engine.model, requests, disable_tqdm=True)
            ours, theirs = ours + between - start, theirs + cpu_seconds() - between
            differing += sum(a != b for a, b in zip(one, other, strict=True))
    return ours, theirs, differing


def measured(found: Material, rounds: int) -> dict[str, Any]:
    from sftknow_eval.sweep.request import FactSet, SweepRequest

    request = SweepRequest(
        base=found.base,
        finetuned=found.finetuned,
        ratios=RATIOS,
        tasks=["sftknow_cbqa"],
        metadata=found.metadata,
        batch_size="256",
    )
    sets = {split: FactSet({"split": split}) for split in ("dev", "test")}
    first = sweep_once(request, sets)
    sweeps, generations = [], []
    for _ in range(rounds):
        generations.append(generate_once(request, sets))
        sweeps.append(sweep_once(request, sets))
    alone, theirs = min(g[0] for g in generations), min(g[1] for g in generations)
    return {
        "sweep_cpu_s": round(min(sweeps), 2),
        "first_sweep_cpu_s": round(first, 2),
        "generation_alone_cpu_s": round(alone, 2),
        "sweep_over_generation": round(min(sweeps) / alone, 3),
        "allowed": 1.15,
        "lm_eval_generation_cpu_s": round(theirs, 2),
        "sweep_over_lm_eval_generation": round(min(sweeps) / theirs, 3),
        "answers_that_differ": generations[0][2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    found = material(options)
    import lm_eval  # before the clock runs

    import sftknow_eval.restoration.hf_model

    assert lm_eval
    assert sftknow_eval.restoration.hf_model
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    result = measured(found, options.rounds)
    print(json.dumps(result, indent=2))
    raise SystemExit(0 if result["sweep_over_generation"] <= result["allowed"] else 1)


if __name__ == "__main__":
    main()
