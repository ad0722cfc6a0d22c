"""A training under a launcher, as for several processes, is the training without one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sftknow_eval.artifacts import read_json
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.study.study import read_plan, run_study

RUNS = """\
  - {strategy: sft_divided, strata: [4], n: [8], settings: {epochs: 2, save_dtype: bfloat16}}
  - {strategy: sft_divided, strata: [1], n: [1000]}
"""


def test_a_launched_training_gives_the_same_weights(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    launch = f"compute: {{launch: [{sys.executable}, -m]}}\n"
    prints = []
    for name, more in (("plain", ""), ("launched", launch)):
        plan = read_plan(write_study(RUNS, more, f"{name}.yaml"))
        outcome = run_study(plan, tmp_path / name, workers=1, only="train")
        assert outcome.left_out.keys() == {"sft_divided-s1-n1000-d0"}
        model = tmp_path / name / "runs" / "sft_divided-s4-n8-d0" / "model"
        assert read_json(model / "sftknow.json")["saved_dtype"] == "bfloat16"
        prints.append(weight_fingerprint(model))
    assert prints[0] == prints[1]
