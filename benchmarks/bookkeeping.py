"""Book-keeping of a full-size probe: everything but the engine, in memory and CPU time.

    python benchmarks/bookkeeping.py --data PATH/TO/dataset.zip

106,692 facts x 21 templates x 10 samples go through loading, prompts, seeds, the judge,
shards and the table, with a stand-in engine that answers at once. The completions have the
length of real ones (32 tokens, about 140 characters) and four of ten are distinct. Exits with
code 1 above 300 MB of peak memory or 5 CPU-minutes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.probe import probe
from sftknow_eval.mastery.probe_settings import ProbeSettings
from sftknow_eval.mastery.sampling import Request
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.mastery.templates import load_templates

MOST_MEGABYTES = 300.0
MOST_CPU_SECONDS = 300.0
FILLER = " and was for many years one of the best known places of the whole region, as several"


class InstantSampler:
    """Ten completions a prompt, at once; a quarter of the prompts gets the answer in three."""

    n_samples = 10

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        """Yield ready-made completions in the order of the requests."""
        for request in requests:
            answer = request.stops[0] if request.seed >> 16 & 3 == 0 else "nobody knows"
            first = f" {answer}{FILLER} {request.prompt[-20:]}"
            texts = [first, f" the north{FILLER} {request.prompt}", f" a{FILLER}", f" it{FILLER}"]
            yield request.index, [texts[j % 4] for j in range(10)]

    def describe(self) -> dict[str, Any]:
        """Say that no model is behind this."""
        return {"engine": "stand-in"}

    def close(self) -> None:
        """Nothing to release."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="EntityQuestions: folder or zip")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    dataset = open_dataset(arguments.data)
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    settings = ProbeSettings(base="stand-in", fingerprint="0" * 64, answer_stop=True)
    with tempfile.TemporaryDirectory() as folder:
        outcome = probe(dataset, templates, InstantSampler, Path(folder), settings)
        table = MasteryTable.read(outcome.table)
        size = outcome.table.stat().st_size
        known = table.column("n_correct").sum() / table.column("n_samples").sum()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = time.process_time()
    print(f"facts                {len(table):>12,}")
    print(f"prompts              {len(table) * templates.count:>12,}")
    print(f"completions judged   {int(table.column('n_samples').sum()):>12,}")
    print(f"samples correct      {known:>12.1%}")
    print(f"table                {size / 1e6:>12.2f} MB")
    print(f"peak memory          {megabytes:>12.0f} MB   (at most {MOST_MEGABYTES:.0f})")
    print(f"CPU time             {cpu:>12.1f} s    (at most {MOST_CPU_SECONDS:.0f})")
    print(f"wall time            {time.perf_counter() - begin:>12.1f} s")
    return int(megabytes > MOST_MEGABYTES or cpu > MOST_CPU_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
