"""A task that is not about facts, for the mini-world: say the name that has just been said.

The rows use the names that the world's facts are about, so that the tokens are known to the
base while the task is new to it. The lm-eval task that scores it is written beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import yaml

from sftknow_eval.mastery.dataset import open_dataset

TASK = "sftknow_echo"
TRAIN, TEST = "train.jsonl", "test.jsonl"
_TEST_ROWS = 300


def write_echo(data: str, n: int, seed: int, folder: Path) -> None:
    """Write training rows, test rows and the lm-eval task.

    Args:
        data: folder of the world, for its names.
        n: number of training rows.
        seed: of the rows; test rows have a seed of their own.
        folder: where to.
    """
    facts = open_dataset(data).facts("train", domain="id")
    names = sorted({fact.answer for fact in facts})
    for name, rows, start in ((TRAIN, n, f"{seed}|train"), (TEST, _TEST_ROWS, f"{seed}|test")):
        chosen = Random(f"echo|{start}")
        lines = [json.dumps(_row(chosen.choice(names)), ensure_ascii=False) for _ in range(rows)]
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    text = yaml.safe_dump(_task(folder / TEST), sort_keys=False)
    (folder / f"{TASK}.yaml").write_text(text, encoding="utf-8")


def _row(name: str) -> dict[str, str]:
    return {"prompt": f"The word is {name}. The word is", "target": f" {name}", "name": name}


def _task(test: Path) -> dict[str, object]:
    return {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(test)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "name",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
        "filter_list": [
            {
                "name": "answer",
                "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
