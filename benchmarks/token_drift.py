"""Token drift against one forward pass of the same prompts for each model: at most 1.2.

    OMP_NUM_THREADS=1 python benchmarks/token_drift.py --folder DIR [--world DIR --probe DIR ...]

CPU time, in one process, alternating, the least of several rounds of each. Both load their two
models; the pass computes the last position's logits of the same batches and keeps nothing. Token
drift also writes its files, and reads of the base's completion as much as tells whether the
answer comes first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from small_world import add_options, cpu_seconds, material

BATCH = 256


def drift_once(request: Any) -> float:
    from sftknow_eval.evaluation.tokens.measure import token_drift

    with tempfile.TemporaryDirectory() as folder:
        start = cpu_seconds()
        token_drift(request, Path(folder))
        return cpu_seconds() - start


def passes_once(request: Any) -> float:
    import torch

    from sftknow_eval.evaluation.tokens.request import prepare
    from sftknow_eval.mastery.hf_model import load_model

    start = cpu_seconds()
    comparison = prepare(request)
    sides = {
        comparison.finetuned: [fact.finetuned_tokens for fact in comparison.facts],
        comparison.base: [fact.base_tokens for fact in comparison.facts],
    }
    for side, prompts in sides.items():
        model = load_model(side.folder, side.name, "auto", False)
        ordered = sorted(prompts, key=len, reverse=True)
        for place in range(0, len(ordered), BATCH):
            batch = side.tokenizer.pad(
                {"input_ids": ordered[place : place + BATCH]},
                padding_side="left",
                return_tensors="pt",
            )
            with torch.no_grad():
                model(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    logits_to_keep=1,
                )
    return cpu_seconds() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    found = material(options)
    from transformers.utils import logging

    from sftknow_eval.evaluation.tokens.request import TokenDriftRequest

    logging.disable_progress_bar()
    request = TokenDriftRequest(
        base=found.base, finetuned=found.finetuned, metadata=found.metadata, batch_size=BATCH
    )
    first = drift_once(request)
    pairs = [(passes_once(request), drift_once(request)) for _ in range(options.rounds)]
    passes, drift = (min(times) for times in zip(*pairs, strict=True))
    result = {
        "token_drift_cpu_s": round(drift, 2),
        "first_token_drift_cpu_s": round(first, 2),
        "one_pass_each_cpu_s": round(passes, 2),
        "drift_over_passes": round(drift / passes, 3),
        "allowed": 1.2,
    }
    print(json.dumps(result, indent=2))
    raise SystemExit(0 if drift / passes <= 1.2 else 1)


if __name__ == "__main__":
    main()
