"""A training that is killed goes on from its last checkpoint, to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.artifacts import locked, read_json
from sftknow_eval.errors import SettingsError, TrainingDiverged
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.record import TrainingRecord
from sftknow_eval.training.run import Finetuned, TrainRequest, train_strategy
from sftknow_eval.training.strategy import load_strategy

# 12 steps in two epochs, a checkpoint after every third.
OPTIONS = {"learning_rate": 1e-2, "batch_size": 1, "epochs": 2, "max_steps": 12}


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def request_(random_model: Path, tmp_path: Path) -> TrainRequest:
    return TrainRequest(
        base=str(random_model),
        out=tmp_path / "ft",
        n=6,
        training=OPTIONS,
        checkpoint_steps=3,
    )


def _train(
    request: TrainRequest,
    small_data: Path,
    table: MasteryTable,
    strategy: str = "sft_divided",
    stop_at: int | None = None,
) -> Finetuned:
    def on_step(step: int, total: int, loss: float) -> None:
        if step == stop_at:
            raise Killed

    return train_strategy(
        load_strategy(strategy), request, open_dataset(small_data), table, on_step=on_step
    )


@pytest.mark.parametrize("strategy", ["sft_divided", "lora", "oft"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    request_: TrainRequest,
    small_data: Path,
    hand_table: MasteryTable,
    strategy: str,
    tmp_path: Path,
) -> None:
    whole = _train(request_, small_data, hand_table, strategy)
    other = TrainRequest(**{**_fields(request_), "out": tmp_path / "again"})
    for stop_at in (5, 8):
        with pytest.raises(Killed):
            _train(other, small_data, hand_table, strategy, stop_at=stop_at)
        assert not other.out.exists()
    done = _train(other, small_data, hand_table, strategy)
    assert done.record.resumed_at == (3, 6)
    assert done.record.losses == whole.record.losses
    assert [step for step, _ in done.record.losses] == list(range(1, 13))
    assert weight_fingerprint(done.folder) == weight_fingerprint(whole.folder)
    assert not list(tmp_path.glob(".*"))


def test_checkpoints_of_other_settings_are_not_used(
    request_: TrainRequest, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        _train(request_, small_data, hand_table, stop_at=5)
    other = TrainRequest(**{**_fields(request_), "seed": 1})
    done = _train(other, small_data, hand_table)
    assert done.record.resumed_at == ()
    assert len(done.record.losses) == 12


def test_a_checkpoint_that_was_cut_off_is_passed_over(
    request_: TrainRequest, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        _train(request_, small_data, hand_table, stop_at=8)
    (checkpoint,) = (tmp_path / ".ft.training").glob("checkpoint-*")
    later = checkpoint.with_name("checkpoint-9")
    later.mkdir()
    (later / "trainer_state.json").write_text('{"global_st')
    assert _train(request_, small_data, hand_table).record.resumed_at == (6,)


def test_checkpoints_that_a_finished_run_left_are_removed(
    request_: TrainRequest, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    _train(request_, small_data, hand_table)
    (tmp_path / ".ft.training" / "checkpoint-9").mkdir(parents=True)
    assert _train(request_, small_data, hand_table).reused
    assert not list(tmp_path.glob(".*"))


def test_a_diverged_training_keeps_no_checkpoints(
    request_: TrainRequest, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    wild = TrainRequest(**{**_fields(request_), "training": OPTIONS | {"learning_rate": 1e30}})
    with pytest.raises(TrainingDiverged):
        _train(wild, small_data, hand_table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_two_trainings_of_one_model_are_refused(
    request_: TrainRequest, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    with (
        locked(tmp_path / ".ft.training"),
        pytest.raises(SettingsError, match="Another run is writing"),
    ):
        _train(request_, small_data, hand_table)


def test_a_killed_process_goes_on_when_the_command_is_given_again(
    random_model: Path, small_data: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    table = tmp_path / "mastery.parquet"
    hand_table.write(table)
    command = [sys.executable, "-m", "sftknow_eval", "train", random_model, "--data", small_data]
    command += ["--mastery", table, "--n", "6", "--learning-rate", "1e-3", "--batch-size", "1"]
    command += ["--max-steps", "400", "--epochs", "100", "--checkpoint-steps", "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(part) for part in (*command, "--out", out)],
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not list((tmp_path / ".killed.training").glob("checkpoint-*/trainer_state.json")):
        assert killed.poll() is None, "it ended before the first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    for name in ("killed", "whole"):
        assert start(tmp_path / name).wait() == 0
    records = {
        name: TrainingRecord.model_validate(read_json(tmp_path / name / "sftknow.json"))
        for name in ("killed", "whole")
    }
    assert records["killed"].resumed_at
    assert records["killed"].losses == records["whole"].losses
    prints = {weight_fingerprint(tmp_path / name) for name in ("killed", "whole")}
    assert len(prints) == 1


def _fields(request: TrainRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}
