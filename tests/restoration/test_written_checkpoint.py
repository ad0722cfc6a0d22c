"""What lies in a written folder: a whole model that others can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from restoration_pairs import in_region, llama_shapes, load, moved, random_tensors, same_bytes, save
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from sftknow_eval.cli.app import app
from sftknow_eval.cli.verbs import register
from sftknow_eval.restoration.recipe import Recipe

if not app.registered_commands:
    register(app)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["restore", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def finetuned_model(random_model: Path, tmp_path: Path) -> Path:
    """The session's random model with every weight moved, in bfloat16, without a tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(random_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.01
    model.to(torch.bfloat16).save_pretrained(tmp_path / "ft", max_shard_size="100KB")
    return tmp_path / "ft"


def test_the_folder_loads_in_transformers(
    random_model: Path, finetuned_model: Path, tmp_path: Path
) -> None:
    shutil.copy(finetuned_model / "config.json", finetuned_model / "trainer_state.json")
    (finetuned_model / "optimizer.pt").write_bytes(b"not for copying")
    run(random_model, finetuned_model, "--ratios", "100", "--out", tmp_path / "out")
    folder = tmp_path / "out/ratio-100"
    model = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(random_model)
    finetuned = AutoModelForCausalLM.from_pretrained(finetuned_model)
    theirs = dict(finetuned.named_parameters())
    for name, parameter in base.named_parameters():
        expected = parameter.bfloat16() if in_region(name) else theirs[name]
        assert dict(model.named_parameters())[name].equal(expected)
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "recipe.json", "generation_config.json", "tokenizer.json"} <= names
    assert not names & {"trainer_state.json", "optimizer.pt"}
    text = (folder / "README.md").read_text()
    assert "100% restored" in text
    assert str(random_model) in text


def test_a_cast_that_is_not_exact_is_said(
    random_model: Path, finetuned_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A float32 base and a bfloat16 fine-tune."""
    run(random_model, finetuned_model, "--ratios", "5", "--out", tmp_path / "o", "--recipe-only")
    assert "some base values are not exact in the fine-tune's type BF16" in caplog.text


def test_whole_layers_go_back(tmp_path: Path) -> None:
    """Table 11: layer 0 is the base's, layer 1 the fine-tune's."""
    base = random_tensors(llama_shapes(), 1)
    finetuned = moved(base, 2)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    arguments = ("--layers", "0", "--ratios", "100", "--out", tmp_path / "out")
    run(tmp_path / "base", tmp_path / "ft", *arguments)
    expected = {
        name: base[name] if ".layers.0." in name and in_region(name) else tensor
        for name, tensor in finetuned.items()
    }
    assert same_bytes(load(tmp_path / "out/ratio-100"), expected)


def test_a_base_saved_without_its_prefix_is_matched(tmp_path: Path) -> None:
    """The hub's GPT-2 names its layers `h.0...`, a saved fine-tune `transformer.h.0...`."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8)
    model = GPT2LMHeadModel(config)
    model.transformer.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.01
    model.save_pretrained(tmp_path / "ft")
    run(tmp_path / "base", tmp_path / "ft", "--ratios", "100", "--out", tmp_path / "out")
    base, written = load(tmp_path / "base"), load(tmp_path / "out/ratio-100")
    name = "h.1.mlp.c_proj.weight"
    assert written[f"transformer.{name}"].equal(base[name])
    recipe = json.loads((tmp_path / "out/ratio-100/recipe.json").read_text())
    assert recipe["tensors"][f"transformer.{name}"]["base_name"] == name
    assert recipe["elements"] == 2 * (4 * 16 * 16 + 4 * 16 + 8 * 16 * 16 + 5 * 16)


def test_a_grown_vocabulary_is_said(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1)
    finetuned = moved(base, 2)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = torch.ones((3, 16), dtype=torch.bfloat16)
        finetuned[name] = torch.cat([finetuned[name], rows])
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    arguments = ("--region", "embedding", "--ratios", "100", "--out", tmp_path / "out")
    run(tmp_path / "base", tmp_path / "ft", *arguments)
    written = load(tmp_path / "out/ratio-100")["lm_head.weight"]
    assert written[:40].equal(base["lm_head.weight"])
    assert (written[40:] == 1).all()
    text = (tmp_path / "out/ratio-100/README.md").read_text()
    assert "'lm_head.weight' has 3 more rows than the base" in text


def test_the_same_recipe_comes_out_however_the_models_are_sharded(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1)
    finetuned = moved(base, 2)
    digests = set()
    for shards in (1, 3):
        save(tmp_path / f"base-{shards}", base, shards=shards)
        save(tmp_path / f"ft-{shards}", finetuned, shards=4 - shards)
        out = tmp_path / f"out-{shards}"
        pair = tmp_path / f"base-{shards}", tmp_path / f"ft-{shards}"
        run(*pair, "--ratios", "20", "--out", out, "--recipe-only")
        recipe = json.loads((out / "ratio-20.json").read_text())
        for side in ("base", "finetuned"):
            recipe[side] = recipe[side]["fingerprint"]
        digests.add(json.dumps(recipe))
    assert len(digests) == 1


def test_a_recipe_is_the_same_bytes_whatever_order_its_tensors_came_in(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", moved(base, 2))
    run(tmp_path / "base", tmp_path / "ft", "--ratios", "20", "--out", tmp_path, "--recipe-only")
    recipe = Recipe.read(tmp_path / "ratio-20.json")
    assert len(recipe.tensors) > 1
    assert len(recipe.others) > 1
    mapped = {"tensors": recipe.tensors, "others": recipe.others, "twins": {"b": "a", "a": "b"}}
    for file, step in (("forwards.json", 1), ("backwards.json", -1)):
        turned = {field: dict(list(value.items())[::step]) for field, value in mapped.items()}
        recipe.model_copy(update=turned).write(tmp_path / file)
    assert (tmp_path / "forwards.json").read_bytes() == (tmp_path / "backwards.json").read_bytes()
