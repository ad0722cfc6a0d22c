"""Two processes that train one model: the same weights as one, written once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.record import read_record

LAUNCH = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--")


def test_two_processes_give_the_weights_of_one(
    random_model: Path, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    table = tmp_path / "mastery.parquet"
    hand_table.write(table)

    def run(out: str, *launch: str) -> str:
        command = [sys.executable, *launch, *(() if launch else ("-m",)), "sftknow_eval", "train"]
        command += [str(random_model), "--data", str(small_data), "--mastery", str(table)]
        command += ["--n", "6", "--learning-rate", "1e-3", "--batch-size", "2", "--epochs", "3"]
        command += ["--checkpoint-steps", "2", "--out", str(tmp_path / out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("two", *LAUNCH)
    assert said.count("Trained on 6 facts") == 1
    run("one")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    base = load_file(random_model / "model.safetensors")
    moved = max(float((one[name] - base[name]).abs().max()) for name in base)
    apart = max(float((one[name] - two[name]).abs().max()) for name in base)
    # Rounding of sums in another order, far below what the training moved.
    assert apart < 1e-2 * moved
    record = read_record(tmp_path / "two")
    assert record is not None
    assert record.processes == 2
    assert not list(tmp_path.glob(".*"))
    # One process finds the model of two, and the other way round.
    assert "nothing to do" in run("two")
    assert run("one", *LAUNCH).count("nothing to do") == 1
