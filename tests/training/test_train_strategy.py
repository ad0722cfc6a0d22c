"""A fine-tune from start to end, through the command line where a user would meet it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from sftknow_eval.cli.train import train as train_command
from sftknow_eval.errors import MasteryError, ModelError, OutOfSpace, SettingsError
from sftknow_eval.mastery.dataset import Dataset, open_dataset
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.record import read_record
from sftknow_eval.training import run as module
from sftknow_eval.training.run import Finetuned, TrainRequest, train_strategy
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.strategy import load_strategy

SETTINGS = {"learning_rate": 1e-2, "batch_size": 2}


def finetune(request: TrainRequest, dataset: Dataset, table: MasteryTable) -> Finetuned:
    return train_strategy(load_strategy("sft_divided"), request, dataset, table)


@pytest.fixture
def dataset(small_data: Path) -> Dataset:
    return open_dataset(small_data)


@pytest.fixture
def table(hand_table: MasteryTable) -> MasteryTable:
    return hand_table


@pytest.fixture
def request_(random_model: Path, tmp_path: Path) -> TrainRequest:
    return TrainRequest(
        base=str(random_model), out=tmp_path / "ft", stratum=2, n=5, training=SETTINGS
    )


def test_the_folder_is_a_whole_model_with_its_record(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable, random_model: Path
) -> None:
    done = finetune(request_, dataset, table)
    assert not done.reused
    assert sorted(path.name for path in request_.out.parent.iterdir()) == ["cache", "ft"]
    present = {path.name for path in done.folder.iterdir()}
    assert present >= {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "sftknow.json",
    }
    record = read_record(done.folder)
    assert record == done.record
    assert record is not None
    assert record.base_fingerprint == weight_fingerprint(random_model) == table.meta.fingerprint
    assert (record.stratum, record.n, record.seed, record.prompt) == (2, 5, 0, "paper")
    stratum_2 = {fact.id for fact in dataset.facts("train")[:6]}
    assert len(set(record.fact_ids)) == 5
    assert set(record.fact_ids) < stratum_2
    assert record.steps == 3
    assert [step for step, _ in record.losses] == [1, 2, 3]
    assert record.hyperparameters == dataclasses.asdict(TrainSettings(**SETTINGS))
    assert record.saved_dtype == "float32"
    assert record.versions["trl"]
    model = AutoModelForCausalLM.from_pretrained(done.folder)
    before = AutoModelForCausalLM.from_pretrained(random_model)
    assert model.dtype == torch.float32
    assert any(
        not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    )
    text = "<|question|> Where did Kurt Gödel die? <|answer|>"
    ids = [AutoTokenizer.from_pretrained(f)(text).input_ids for f in (random_model, done.folder)]
    assert ids[0] == ids[1]


def test_the_same_run_is_recognised_and_another_is_refused(
    request_: TrainRequest,
    dataset: Dataset,
    table: MasteryTable,
    monkeypatch: pytest.MonkeyPatch,
    random_model: Path,
    tmp_path: Path,
) -> None:
    done = finetune(request_, dataset, table)
    copy = tmp_path / "copy-of-the-base"
    shutil.copytree(random_model, copy)
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    again = finetune(dataclasses.replace(request_, base=str(copy)), dataset, table)
    assert again.reused
    assert again.record == done.record
    other = dataclasses.replace(request_, n=4, training={"learning_rate": 2e-2})
    with pytest.raises(SettingsError) as caught:
        finetune(other, dataset, table)
    for text in ("n: 5 there, 4 now", "learning_rate: 0.01 there, 0.02 now", "batch_size: 2 there"):
        assert text in str(caught.value)
    assert "versions" not in str(caught.value)


def test_equal_runs_give_equal_weights(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable, tmp_path: Path
) -> None:
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = finetune(
            dataclasses.replace(request_, out=tmp_path / name, seed=seed), dataset, table
        )
        prints.append(weight_fingerprint(done.folder))
    assert prints[0] == prints[1] != prints[2]


def test_weights_can_be_saved_in_bfloat16(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable
) -> None:
    settings = SETTINGS | {"save_dtype": "bfloat16"}
    done = finetune(dataclasses.replace(request_, training=settings), dataset, table)
    assert done.record.saved_dtype == "bfloat16"
    weights = load_file(done.folder / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert json.loads((done.folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_foreign_folder_is_left_alone(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable
) -> None:
    request_.out.mkdir()
    (request_.out / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match="not a model made by 'sftknow train'"):
        finetune(request_, dataset, table)
    assert [path.name for path in request_.out.iterdir()] == ["thesis.tex"]


def test_a_table_of_another_base_is_refused(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable
) -> None:
    meta = dataclasses.replace(table.meta, base="another/model", fingerprint="ab" * 32)
    with pytest.raises(MasteryError, match="another/model"):
        finetune(request_, dataset, MasteryTable(table.rows, meta))


def test_too_many_facts_are_refused_before_anything_is_written(
    request_: TrainRequest, dataset: Dataset, table: MasteryTable
) -> None:
    with pytest.raises(SettingsError, match="7 facts were asked for, but there are 6"):
        finetune(dataclasses.replace(request_, n=7), dataset, table)
    assert not request_.out.exists()


@pytest.mark.parametrize("failure", ["diverged", "disk full"])
def test_a_failed_run_leaves_nothing_that_looks_finished(
    request_: TrainRequest,
    dataset: Dataset,
    table: MasteryTable,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected: type[Exception] = ModelError
    if failure == "diverged":
        rate = {"learning_rate": 1e30, "batch_size": 2}
        request_ = dataclasses.replace(request_, training=rate)
    else:
        expected = OutOfSpace

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(expected):
        finetune(request_, dataset, table)
    assert sorted(path.name for path in request_.out.parent.iterdir()) == ["cache"]


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainRequest(base="b", out=tmp_path, stratum=5, n=0, seed=-1)
    for name in ("stratum is 5", "n is 0", "seed is -1"):
        assert name in str(caught.value)


def test_the_command_trains_shows_and_reuses(
    table: MasteryTable, random_model: Path, small_data: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(train_command)
    table.write(tmp_path / "mastery.parquet")
    command = [str(random_model), "--mastery", str(tmp_path / "mastery.parquet")]
    command += ["--data", str(small_data), "--out", str(tmp_path / "ft"), "--learning-rate", "1e-2"]
    run = CliRunner().invoke(app, [*command, "--n", "all", "--draw", "3"], catch_exceptions=False)
    assert run.exit_code == 0
    assert "Trained on 6 facts of stratum 2 in 1 steps" in run.output.replace("\n", " ")
    again = CliRunner().invoke(app, [*command, "--n", "6", "--seed", "3", "--json"])
    assert again.exit_code == 0
    assert json.loads(again.stdout)["seed"] == 3
    with pytest.raises(SettingsError, match="'many', neither a number nor 'all'"):
        CliRunner().invoke(app, [*command, "--n", "many"], catch_exceptions=False)
