"""The transformers sampler: merged over plain sampling, and answer-stop over none.

    python benchmarks/merged_sampling.py [--world DIR] [--prompts 1500] [--pairs 3]

Every way draws 10 completions (T = 0.7, at most 32 tokens) of the same prompts, spread over
the facts and templates of a mini-world; the ways take turns, and the ratios are the medians
over the turns, in CPU time. `plain` is the same class with merging off; `generate` is
transformers' own sampling loop. Exits with code 1 when merging is less than 3 times faster
than plain sampling, or when the completions differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.hf_model import load_model, load_tokenizer
from sftknow_eval.mastery.hf_sampler import HfSampler
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.sampling import Request, request_seed
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.world.build import build_world
from sftknow_eval.world.settings import world_settings

LEAST_RATIO = 3.0
SAMPLES, TEMPERATURE, TOKENS = 10, 0.7, 32
BATCH = 128


def world_requests(world: Path, count: int) -> list[Request]:
    """Return about `count` requests, evenly spread over facts and templates, with their answers."""
    data = open_dataset(world)
    templates = load_templates(data.templates_file, data.relations.values())
    facts = data.probe_facts()
    numbers = range(0, len(facts) * templates.count, max(1, len(facts) * templates.count // count))
    requests = []
    for number in numbers:
        fact, template = facts[number // templates.count], number % templates.count
        seed = request_seed(0, fact.id, template)
        prompt = templates.prompt(fact, template)
        requests.append(Request(number, prompt, seed, fact.aliases))
    return requests


def generate_all(base: Path, requests: list[Request]) -> None:
    """Sample with transformers' own loop, prompts of equal length in a batch."""
    tokenizer = load_tokenizer(base, str(base), False)
    model = load_model(base, str(base), "auto", False)
    by_length = defaultdict(list)
    for ids in tokenizer([request.prompt for request in requests])["input_ids"]:
        by_length[len(ids)].append(ids)
    for group in by_length.values():
        for begin in range(0, len(group), BATCH):
            ids = torch.tensor(group[begin : begin + BATCH])
            drawn = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                max_new_tokens=TOKENS,
                num_return_sequences=SAMPLES,
            )
            tokenizer.batch_decode(drawn[:, ids.shape[1] :], skip_special_tokens=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, help="a folder of `sftknow world`; else one is made")
    parser.add_argument("--prompts", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        world = arguments.world or build_world(Path(scratch) / "world", world_settings("demo"))[0]
        return compare(world, world_requests(world, arguments.prompts), arguments.pairs)


def compare(world: Path, requests: list[Request], pairs: int) -> int:
    """Time every way in turn, print the table, and return the exit code."""
    base = world / "base"
    bare = [Request(r.index, r.prompt, r.seed) for r in requests]
    texts: dict[str, dict[int, list[str]]] = {}
    work: dict[str, tuple[int, int]] = {}

    def ours(name: str, asked: list[Request], merge: bool) -> Callable[[], None]:
        sampler = HfSampler(
            base, n_samples=SAMPLES, temperature=TEMPERATURE, max_tokens=TOKENS, merge=merge
        )

        def go() -> None:
            sampler.forward_rows = sampler.drawn_tokens = 0
            texts[name] = dict(sampler.sample(asked))
            work[name] = (sampler.forward_rows, sampler.drawn_tokens)

        return go

    ways = {
        "merged": ours("merged", bare, True),
        "plain": ours("plain", bare, False),
        "generate": lambda: generate_all(base, bare),
        "answer-stop": ours("answer-stop", requests, True),
    }
    seconds = defaultdict(list)
    for turn in range(pairs + 1):
        for name, go in ways.items():
            begin = time.process_time()
            go()
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - begin)
    ratios = {
        name: statistics.median(
            other / merged for other, merged in zip(times, seconds["merged"], strict=True)
        )
        for name, times in seconds.items()
    }
    print(f"{len(requests)} prompts of {world}, {SAMPLES} samples each, medians of {pairs} turns")
    print(f"{'way':12} {'CPU-s':>8} {'over merged':>12} {'rows':>10} {'tokens':>10}")
    for name, times in seconds.items():
        rows, tokens = work.get(name, ("", ""))
        median = statistics.median(times)
        print(f"{name:12} {median:8.2f} {ratios[name]:12.2f} {rows:>10} {tokens:>10}")
    share = work["answer-stop"][1] / work["merged"][1]
    print(f"tokens with answer-stop over without: {share:.3f}")
    same = texts["merged"] == texts["plain"]
    verdicts = [
        [contains(text, r.stops) for r in requests for text in texts[name][r.index]]
        for name in ("merged", "answer-stop")
    ]
    print(f"completions merged = plain: {same}; verdicts with answer-stop = without: ", end="")
    print(verdicts[0] == verdicts[1])
    return int(not same or verdicts[0] != verdicts[1] or ratios["plain"] < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
