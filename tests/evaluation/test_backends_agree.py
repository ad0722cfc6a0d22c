"""The same fine-tune on transformers and on a real vLLM engine: the same verdicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def sftknow(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sftknow_eval", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.vllm
def test_verdicts_agree_on_99_percent_of_facts(
    tuned: Path, tiny_mastery: Path, tmp_path: Path
) -> None:
    for backend in ("hf", "vllm"):
        options = ("--mastery", tiny_mastery, "--backend", backend)
        sftknow("eval", tuned, *options, "--out", tmp_path / backend)
    found = json.loads(sftknow("compare", tmp_path / "hf", tmp_path / "vllm", "--json"))
    assert found["agreeing"]["n"] == 120
    listed = [entry["fact_id"] for entry in found["differing"]]
    assert len(listed) == 120 - found["agreeing"]["n_correct"]
    assert found["agreeing"]["value"] >= 0.99, found["differing"]
    # Both models were evaluated on both engines, the base by its best templates.
    scores = [
        json.loads((tmp_path / backend / "results.json").read_text())["scores"]["base"]
        for backend in ("hf", "vllm")
    ]
    for domain in ("id", "ood"):
        known = [sum(s["n_correct"] for s in x[domain]["alias_acc"]["strata"]) for x in scores]
        assert abs(known[0] - known[1]) <= 1
