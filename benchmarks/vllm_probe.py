"""`sftknow probe --backend vllm` over a bare `LLM.generate` of the same requests.

    python benchmarks/vllm_probe.py [--world DIR] [--model FOLDER] [--prompts 5000] [--pairs 5]

One engine serves both, so that its start is in neither. The bare side gets ready prompts and
sampling parameters and keeps its outputs; the probe makes its prompts, seeds and parameters,
judges every completion and writes shards and table. The two take turns, the first of a pair
changing, with an empty prefix cache each; the ratio is the median over the pairs. Then the
same probe with and without answer-stop: tokens generated, time, and whether all verdicts are
equal. Exits with code 1 when the ratio is above 1.05 or a verdict differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sftknow_eval import vllm_support

vllm_support.prepare_environment()

from sftknow_eval.mastery.job import ProbeJob, prepare_probe  # noqa: E402
from sftknow_eval.mastery.probe import probe  # noqa: E402
from sftknow_eval.mastery.probe_settings import select_facts  # noqa: E402
from sftknow_eval.mastery.sampling import Request, request_seed  # noqa: E402
from sftknow_eval.mastery.table import MasteryTable  # noqa: E402
from sftknow_eval.mastery.vllm_sampler import VllmSampler  # noqa: E402
from sftknow_eval.world.build import build_world  # noqa: E402
from sftknow_eval.world.settings import world_settings  # noqa: E402

MOST_RATIO = 1.05


class Bench:
    """One engine, one set of requests, two ways to have them answered."""

    def __init__(self, job: ProbeJob, folder: Path) -> None:
        self.job = job
        self.folder = folder
        begin = time.perf_counter()
        settings = job.settings
        self.sampler = VllmSampler(
            str(job.model_folder),
            n_samples=settings.n_samples,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            **settings.engine_args,
        )
        self.start_seconds = time.perf_counter() - begin
        self.runs = 0

    def requests(self, answer_stop: bool) -> list[Request]:
        """Return the probe's requests as a list."""
        job, n_templates = self.job, self.job.templates.count
        return [
            Request(
                position * n_templates + template,
                job.templates.prompt(fact, template),
                request_seed(job.settings.seed, fact.id, template),
                fact.aliases if answer_stop else (),
            )
            for position, fact in enumerate(select_facts(job.dataset, job.settings))
            for template in range(n_templates)
        ]

    def bare(self, answer_stop: bool) -> float:
        """Return the seconds of `LLM.generate`."""
        requests = self.requests(answer_stop)
        prompts = [request.prompt for request in requests]
        parameters = [self.sampler.parameters(request) for request in requests]
        self.sampler.llm.reset_prefix_cache()
        begin = time.perf_counter()
        outputs = self.sampler.llm.generate(prompts, parameters, use_tqdm=False)
        seconds = time.perf_counter() - begin
        assert len(outputs) == len(requests)
        return seconds

    def probe(self, answer_stop: bool) -> tuple[float, Path]:
        """Return the seconds of a whole probe, and its table."""
        self.runs += 1
        out = self.folder / f"probe-{self.runs}"
        settings = replace(self.job.settings, answer_stop=answer_stop)
        self.sampler.llm.reset_prefix_cache()
        begin = time.perf_counter()
        found = probe(self.job.dataset, self.job.templates, lambda: self.sampler, out, settings)
        return time.perf_counter() - begin, found.table


def compare_with_bare(bench: Bench, pairs: int) -> float:
    """Print and return the median ratio of probe over bare engine."""
    stop = bench.job.settings.answer_stop
    bench.bare(stop)  # the first run of an engine is slower
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            probed, bare = bench.probe(stop)[0], bench.bare(stop)
        else:
            bare, probed = bench.bare(stop), bench.probe(stop)[0]
        ratios.append(probed / bare)
        print(f"pair {pair + 1}: bare {bare:.2f} s, probe {probed:.2f} s, ratio {ratios[-1]:.3f}")
    ratio = statistics.median(ratios)
    print(f"probe over bare LLM.generate: {ratio:.3f} (median of {pairs}; at most {MOST_RATIO})")
    return ratio


def compare_answer_stop(bench: Bench, pairs: int) -> bool:
    """Print tokens and time with answer-stop over without; return whether verdicts are equal."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    tokens: dict[bool, int] = {}
    verdicts = {}
    for _ in range(pairs):
        for stop in (True, False):
            before = bench.sampler.generated_tokens
            took, table = bench.probe(stop)
            seconds[stop].append(took)
            tokens[stop] = bench.sampler.generated_tokens - before
            verdicts[stop] = MasteryTable.read(table).verdicts()
    equal = bool((verdicts[True] == verdicts[False]).all())
    ratio = statistics.median(a / b for a, b in zip(seconds[True], seconds[False], strict=True))
    print(
        f"answer-stop over none: tokens {tokens[True]:,} / {tokens[False]:,} = "
        f"{tokens[True] / tokens[False]:.3f}, time {ratio:.3f} (median of {pairs}), "
        f"verdicts {'all equal' if equal else 'DIFFER'}, right {verdicts[True].mean():.3f}"
    )
    return equal


def main() -> int:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, help="a folder of `sftknow world`; else one is made")
    parser.add_argument("--model", help="another model than the world's base")
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--stop-pairs", type=int, default=3)
    parser.add_argument("--in-flight", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = asked.world or build_world(folder / "world", world_settings("tiny"))[0]
        job = prepare_probe(
            str(asked.model or world / "base"),
            data=str(world),
            backend="vllm",
            limit=-(-asked.prompts // 21),
        )
        bench = Bench(job, folder)
        if asked.in_flight:
            bench.sampler.in_flight = asked.in_flight
        try:
            count = len(bench.requests(False))
            print(f"{count:,} prompts x {job.settings.n_samples} samples, {job.settings.base}")
            print(f"engine start {bench.start_seconds:.1f} s, in flight {bench.sampler.in_flight}")
            ratio = compare_with_bare(bench, asked.pairs) if asked.pairs else 0.0
            equal = compare_answer_stop(bench, asked.stop_pairs) if asked.stop_pairs else True
        finally:
            bench.sampler.close()
    return 0 if ratio <= MOST_RATIO and equal else 1


if __name__ == "__main__":
    sys.exit(main())
