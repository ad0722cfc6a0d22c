"""Rows of any other task: what a file may hold, and a training on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from sftknow_eval.cli.train import train as train_command
from sftknow_eval.errors import DataError, SettingsError, TooFewFacts
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.record import read_record
from sftknow_eval.training.encode import IGNORED, encode_pair
from sftknow_eval.training.material import Row, drawn_rows, read_rows
from sftknow_eval.training.run import TrainRequest, train_strategy
from sftknow_eval.training.strategy import load_strategy


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve rows of a task that is not about facts: the next letter."""
    path = tmp_path / "letters.jsonl"
    pairs = [
        {"prompt": f"After {chr(97 + i)} comes", "target": f" {chr(98 + i)}"} for i in range(12)
    ]
    path.write_text("\n".join(json.dumps(pair) for pair in pairs) + "\n\n", encoding="utf-8")
    return path


def test_prompt_and_target_are_used_as_they_are(random_model: Path) -> None:
    # Expected: the tokenizer's own ids of both texts in one, as its tokens do not cross a space.
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    encoded = encode_pair(tokenizer, "After a comes", " b", "line 1")
    whole = tokenizer("After a comes b").input_ids
    assert encoded["input_ids"] == [*whole, tokenizer.eos_token_id]
    prompt = len(tokenizer("After a comes").input_ids)
    assert encoded["labels"] == [IGNORED] * prompt + encoded["input_ids"][prompt:]


def test_a_training_on_rows_needs_no_facts_and_says_what_it_was(
    rows: Path, random_model: Path, tmp_path: Path
) -> None:
    request = TrainRequest(
        base=str(random_model),
        out=tmp_path / "ft",
        prompts=rows,
        training={"learning_rate": 1e-2, "epochs": 8},
    )
    done = train_strategy(load_strategy("sft_divided"), request)
    record = read_record(done.folder)
    assert record == done.record
    assert record is not None
    assert (record.data, record.n, record.stratum, record.prompt) == ("letters", 12, None, "own")
    assert record.data_source == str(rows.resolve())
    assert record.losses[-1][1] < 0.5 * record.losses[0][1]
    model = AutoModelForCausalLM.from_pretrained(done.folder)
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    ids = torch.tensor([tokenizer("After c comes").input_ids])
    out = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    assert len(tokenizer.decode(out, skip_special_tokens=True)) <= 4
    # The record names the base, but no prompt style and no facts.
    settings = read_settings({"pretrained": str(done.folder)})
    assert (settings.style, settings.data) == (None, None)
    assert settings.base == str(random_model.resolve())


def test_fewer_rows_are_the_beginning_of_more(rows: Path) -> None:
    small, large = (drawn_rows(rows, n, seed=3).items for n in (4, 9))
    assert small == large[:4]
    assert drawn_rows(rows, 4, seed=4).items != small
    with pytest.raises(TooFewFacts, match="13 rows were asked for"):
        drawn_rows(rows, 13, seed=0)


def test_a_line_separator_within_a_text_is_no_new_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a\u2028b", "target": "c", "source": "x"}\r\n', encoding="utf-8")
    assert read_rows(path) == [Row(1, "a\u2028b", "c")]


def test_all_faulty_rows_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "target": "b"}\n{"prompt": "a"}\n[1]\n{"prompt": "a", \n')
    with pytest.raises(DataError) as caught:
        read_rows(path)
    for text in ("line 2: 'target' is missing", "line 3: is not an object", "line 4: is not JSON"):
        assert text in str(caught.value)
    path.write_text("\n")
    with pytest.raises(DataError, match="it is empty"):
        read_rows(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.jsonl")


def test_strategies_that_choose_by_mastery_cannot_take_rows(
    rows: Path, random_model: Path, tmp_path: Path
) -> None:
    request = TrainRequest(base=str(random_model), out=tmp_path / "ft", prompts=rows)
    with pytest.raises(SettingsError, match="chooses facts by their mastery"):
        train_strategy(load_strategy("replay"), request)
    with pytest.raises(SettingsError, match="rows of another task have none"):
        TrainRequest(base="b", out=tmp_path, prompts=rows, stratum=0)


def test_the_command_trains_on_rows_by_any_strategy(
    rows: Path, random_model: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(train_command)
    call = [str(random_model), "--prompts", str(rows), "--strategy", "lora"]
    call += ["--out", str(tmp_path / "ft"), "--n", "9", "--learning-rate", "1e-2"]
    run = CliRunner().invoke(app, call, catch_exceptions=False)
    shown = run.output.replace("\n", " ")
    assert "Trained on 9 rows of letters in 2 steps" in shown
    assert "The adapter (float32)" in shown
    with pytest.raises(SettingsError, match="rows of its own"):
        CliRunner().invoke(app, [*call, "--mastery", "x"], catch_exceptions=False)
