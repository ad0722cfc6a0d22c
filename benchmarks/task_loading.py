"""Loading all 21,168 test facts as lm-eval tasks, against reading them: at most 3 s more.

    python benchmarks/task_loading.py [--data ARCHIVE] [--repeats 3]

Both are timed in one process, alternating, after a first reading that is not counted: reading
is `Dataset.probe_facts`, loading is lm-eval's task manager with our index, the ten tasks and
their requests, up to where the model would be called. The mastery table is synthetic: the
counts decide only which leaf a fact goes to.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "entity_questions" / "dataset.zip"
TEMPLATES, SAMPLES = 21, 10


def synthetic_table(data: Path, path: Path) -> int:
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
    from sftknow_eval.mastery.templates import load_templates

    dataset = open_dataset(data)
    facts = dataset.probe_facts(splits=("test",))
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    rng = np.random.default_rng(0)
    rates = rng.random(len(facts))[:, None, None] ** 2
    verdicts = rng.random((len(facts), TEMPLATES, SAMPLES)) < rates
    meta = TableMeta(
        base="synthetic",
        revision=None,
        fingerprint="0" * 64,
        data=dataset.name,
        facts_digest="synthetic",
        templates_digest=templates.digest,
        n_templates=TEMPLATES,
        samples_per_template=SAMPLES,
        temperature=0.7,
        max_tokens=32,
        seed=0,
    )
    MasteryTable.build(facts, pack_verdicts(verdicts), meta).write(path)
    return len(facts)


def seconds_to_read(data: Path) -> float:
    from sftknow_eval.mastery.dataset import open_dataset

    start = time.perf_counter()
    open_dataset(data).probe_facts(splits=("test",))
    return time.perf_counter() - start


def seconds_to_load(data: Path, mastery: Path, style: str) -> float:
    from sftknow_eval.evaluation.documents import load_task_data
    from sftknow_eval.evaluation.run import TASK, task_manager

    load_task_data.cache_clear()
    start = time.perf_counter()
    manager = task_manager({"data": str(data), "mastery": str(mastery), "style": style})
    for task in manager.load([TASK])["tasks"].values():
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--style", default="completion", help="prompt style; the costliest")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    import sftknow_eval.evaluation.tasks

    assert sftknow_eval.evaluation.tasks  # lm-eval imported before the clock runs
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        mastery = Path(folder) / "mastery.parquet"
        n_facts = synthetic_table(options.data, mastery)
        pairs = [
            (seconds_to_read(options.data), seconds_to_load(options.data, mastery, options.style))
            for _ in range(options.repeats)
        ]
    read, load = (statistics.median(times) for times in zip(*pairs, strict=True))
    found = {
        "facts": n_facts,
        "style": options.style,
        "read_s": round(read, 3),
        "load_as_tasks_s": round(load, 3),
        "difference_s": round(load - read, 3),
        "allowed_difference_s": 3.0,
        "repeats": options.repeats,
    }
    print(json.dumps(found, indent=2))
    raise SystemExit(0 if load - read <= 3.0 else 1)


if __name__ == "__main__":
    main()
