"""Weighted means of two checkpoints: the numbers, the ends, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from sftknow_eval.cli.interpolate import interpolate as command
from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.training.interpolate import interpolate


def _moved(base: Path, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Return a copy of a model with noise on every weight, saved in `dtype`."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture
def finetuned(random_model: Path, tmp_path: Path) -> Path:
    return _moved(random_model, tmp_path / "moved")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_is_the_weighted_mean(
    random_model: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    # Expected: torch's own arithmetic in float32, rounded once to the fine-tune's type.
    moved = _moved(random_model, tmp_path / "moved", dtype)
    made = interpolate(str(random_model), str(moved), (30, 50), tmp_path / "out")
    assert [(model.weight, model.written) for model in made] == [(30, True), (50, True)]
    base, other = (
        load_file(random_model / "model.safetensors"),
        load_file(moved / "model.safetensors"),
    )
    for model in made:
        found = load_file(model.folder / "model.safetensors")
        assert found.keys() == other.keys()
        share = torch.tensor(model.weight / 100, dtype=torch.float32)
        for name, tensor in found.items():
            expected = ((1 - share) * base[name].float() + share * other[name].float()).to(dtype)
            assert torch.equal(tensor, expected), name
        assert AutoModelForCausalLM.from_pretrained(model.folder).dtype == dtype
        assert AutoTokenizer.from_pretrained(model.folder)("a").input_ids
        assert "of the way" in (model.folder / "README.md").read_text()


def test_the_ends_are_the_two_models(random_model: Path, finetuned: Path, tmp_path: Path) -> None:
    ends = interpolate(str(random_model), str(finetuned), (100, 0), tmp_path / "out")
    prints = [weight_fingerprint(model.folder) for model in ends]
    assert prints == [weight_fingerprint(folder) for folder in (random_model, finetuned)]


def test_finished_models_are_kept_and_others_refused(
    random_model: Path, finetuned: Path, tmp_path: Path
) -> None:
    interpolate(str(random_model), str(finetuned), (20,), tmp_path / "out")
    again = interpolate(str(random_model), str(finetuned), (20, 40), tmp_path / "out")
    assert [model.written for model in again] == [False, True]
    other = _moved(finetuned, tmp_path / "further")
    with pytest.raises(SettingsError, match="is not this interpolation"):
        interpolate(str(random_model), str(other), (20,), tmp_path / "out")


def test_models_of_different_shapes_are_refused(
    random_model: Path, finetuned: Path, tmp_path: Path
) -> None:
    path = finetuned / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        interpolate(str(random_model), str(finetuned), (20,), tmp_path / "out")
    assert not (tmp_path / "out" / "weight-20").exists()


@pytest.mark.parametrize("weights", [(), (-1,), (101,)])
def test_impossible_weights_are_refused(
    weights: tuple[float, ...], random_model: Path, finetuned: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="from 0 to 100"):
        interpolate(str(random_model), str(finetuned), weights, tmp_path / "out")


def test_the_command_names_what_it_wrote(
    random_model: Path, finetuned: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(command)
    call = [str(random_model), str(finetuned), "--weights", "25", "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, call, catch_exceptions=False).output
    assert f"25% of the way -> {tmp_path / 'out' / 'weight-25'}" in shown
    rows = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert rows == [{"weight": 25.0, "path": str(tmp_path / "out" / "weight-25"), "written": False}]
