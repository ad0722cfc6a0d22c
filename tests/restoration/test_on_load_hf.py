"""`sftknow-hf`: a fine-tune restored as transformers loads it, and again in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from on_load_pairs import PROMPTS, damaged, finetuned, greedy
from safetensors.torch import load_file, save_file

from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.restoration import hf_model
from sftknow_eval.restoration.hf_model import RestoredHF
from sftknow_eval.restoration.on_load import Choice, torch_checksum
from sftknow_eval.restoration.output import save_checkpoints, save_masks
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.regions import Region
from sftknow_eval.restoration.run import ModelName, opened

RATIOS = (0, 20, 60, 100)


@pytest.fixture(scope="module")
def tuned(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetuned(random_model, tmp_path_factory.mktemp("on-load") / "tuned")


@pytest.fixture(scope="module")
def written(
    random_model: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """The restored checkpoints, written to disk: what is loaded has to be the same."""
    out = tmp_path_factory.mktemp("written")
    recipes = Choice(base=str(random_model), ratio=0).recipes(str(tuned), None, RATIOS)
    with opened(ModelName(str(random_model)), ModelName(str(tuned))) as models:
        done = save_checkpoints(match(*models, Region()), recipes, out)
        save_masks(match(*models, Region()), [recipes[1]], out)
    return {int(entry.recipe.ratio): entry.path for entry in done if entry.recipe}


def started(base: Path, tuned: Path, **arguments: Any) -> RestoredHF:
    return RestoredHF(pretrained=str(tuned), base=str(base), device="cpu", **arguments)


def holds(lm: RestoredHF, folder: Path) -> bool:
    """Whether model and report are those of a checkpoint, every tensor and every bit."""
    stored = load_file(folder / "model.safetensors")
    state = lm.model.state_dict()
    assert state.keys() == stored.keys()
    assert dict(lm.report.tensors) == {n: torch_checksum(t) for n, t in stored.items()}
    return all(torch.equal(state[n].view(torch.int32), stored[n].view(torch.int32)) for n in stored)


def test_ratio_recipe_and_mask_give_the_bytes_of_the_written_checkpoint(
    random_model: Path, tuned: Path, written: dict[int, Path]
) -> None:
    by_ratio = started(random_model, tuned, ratio=20)
    assert holds(by_ratio, written[20])
    recipe = written[20] / "recipe.json"
    by_recipe = started(random_model, tuned, recipe=str(recipe))
    assert by_recipe.report == by_ratio.report
    mask = str(written[20].parent / "ratio-20.mask.safetensors")
    by_mask = started(random_model, tuned, mask=mask)
    assert holds(by_mask, written[20])
    record = by_ratio.get_model_info()["restoration"]
    assert record["restoration"] == Recipe.read(recipe).digest
    assert record["checksum"] == by_mask.report.checksum
    assert record["canary"] == by_mask.report.canary


def test_swaps_in_any_order_give_each_ratio_its_model(
    random_model: Path, tuned: Path, written: dict[int, Path]
) -> None:
    lm = started(random_model, tuned, ratio=20)
    tokens = lm.tok_encode(PROMPTS[0])
    for ratio in (100, 0, 60, 20, 0):
        lm.restore(Choice(base=str(random_model), recipe=str(written[ratio] / "recipe.json")))
        assert holds(lm, written[ratio])
        plain = type(lm.model).from_pretrained(written[ratio])
        assert greedy(lm.model, tokens) == greedy(plain, tokens)


def test_stored_bytes_are_cast_to_the_type_that_is_loaded(
    random_model: Path, tuned: Path, written: dict[int, Path]
) -> None:
    lm = started(random_model, tuned, ratio=20, dtype="bfloat16")
    stored = load_file(written[20] / "model.safetensors")
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(torch.bfloat16))


def test_names_that_transformers_fuses_and_ties(tmp_path: Path, random_model: Path) -> None:
    """Mixtral's experts are stored one by one and held stacked; its head is tied here."""
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(random_model)
    torch.manual_seed(0)
    config = MixtralConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48},
        **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1},
        **{"num_local_experts": 3, "num_experts_per_tok": 2, "tie_word_embeddings": True},
    )
    base = tmp_path / "base"
    MixtralForCausalLM(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    tuned = finetuned(base, tmp_path / "tuned")
    recipes = Choice(base=str(base), ratio=0, region="all").recipes(str(tuned), None, [30])
    with opened(ModelName(str(base)), ModelName(str(tuned))) as models:
        pair = match(*models, Region(name="all"))
        (done,) = save_checkpoints(pair, recipes, tmp_path / "out")
    lm = started(base, tuned, ratio=100, region="all")
    lm.restore(Choice(base=str(base), recipe=str(done.path / "recipe.json")))
    plain = MixtralForCausalLM.from_pretrained(done.path).state_dict()
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(tensor, plain[name]), name


def test_a_base_that_is_damaged_midway_ends_the_model(
    random_model: Path, tuned: Path, written: dict[int, Path], tmp_path: Path
) -> None:
    lm = started(random_model, tuned, ratio=20)
    name = "model.layers.1.mlp.up_proj.weight"
    wrong = damaged(random_model, tmp_path / "wrong", name)
    lm._base = wrong
    with pytest.raises(CheckpointError, match=f"tensor '{name}' of the base differs"):
        lm.restore(Choice(base=str(wrong), recipe=str(written[60] / "recipe.json")))
    with pytest.raises(CheckpointError, match="engine was ended"):
        lm.model.generate(torch.tensor([[0]]))


def test_a_tensor_that_does_not_reach_the_model_ends_it(
    random_model: Path,
    tuned: Path,
    written: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The canary: transformers says that all went well, but one weight is as it was."""
    lm = started(random_model, tuned, ratio=20)
    kept = lm.model.model.layers[1].self_attn.o_proj.weight
    load = hf_model.load_in_place

    def half(model: Any, *rest: Any) -> None:
        load(model, *rest)
        model.model.layers[1].self_attn.o_proj.weight = kept

    monkeypatch.setattr(hf_model, "load_in_place", half)
    with pytest.raises(CheckpointError, match=r"'model.layers.1.self_attn.o_proj.weight' computes"):
        lm.restore(Choice(base=str(random_model), recipe=str(written[60] / "recipe.json")))
    with pytest.raises(CheckpointError, match="engine was ended"):
        lm.model(torch.tensor([[0]]))


def test_a_restoration_that_does_nothing_is_an_error(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="changed no weight at all"):
        started(tuned, tuned, ratio=20)
    assert started(tuned, tuned, ratio=0).report.changed_tensors == 0


def test_a_loader_that_ignores_the_restoration_is_an_error(
    random_model: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later transformers may load by another function than the one that is wrapped."""
    from transformers import core_model_loading, modeling_utils

    genuine = core_model_loading.convert_and_load_state_dict_in_model
    real = modeling_utils.PreTrainedModel._load_pretrained_model

    def unhooked(*args: Any, **kwargs: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(modeling_utils, "convert_and_load_state_dict_in_model", genuine)
            return real(*args, **kwargs)

    monkeypatch.setattr(
        modeling_utils.PreTrainedModel, "_load_pretrained_model", staticmethod(unhooked)
    )
    with pytest.raises(CheckpointError, match="loaded weights 0 times"):
        started(random_model, tuned, ratio=20)


def test_a_recipe_of_other_weights_is_refused(
    random_model: Path, tuned: Path, written: dict[int, Path], tmp_path: Path
) -> None:
    recipe = str(written[20] / "recipe.json")
    name = "lm_head.weight"  # outside the region
    other = damaged(tuned, tmp_path / "other", name)
    with pytest.raises(CheckpointError, match=f"tensor '{name}' of the fine-tune differs"):
        started(random_model, other, recipe=recipe)


def test_arguments_that_do_not_fit_are_refused(
    random_model: Path, tuned: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="exactly one of ratio"):
        started(random_model, tuned)
    with pytest.raises(SettingsError, match="given: ratio, mask"):
        started(random_model, tuned, ratio=3, mask="m")
    with pytest.raises(SettingsError, match="from 0 to 100"):
        started(random_model, tuned, ratio=101)
    with pytest.raises(SettingsError, match="Unknown region 'head'"):
        started(random_model, tuned, ratio=3, region="head")
    with pytest.raises(SettingsError, match="takes no peft"):
        started(random_model, tuned, ratio=3, peft="adapter")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(SettingsError, match="is an adapter"):
        started(random_model, adapter, ratio=3)


def test_grown_vocabulary_and_sharded_base(random_model: Path, tuned: Path, tmp_path: Path) -> None:
    """The new rows stay the fine-tune's; how the base is sharded does not matter."""
    grown = tmp_path / "grown"
    shutil.copytree(tuned, grown)
    tensors = load_file(tuned / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(3, 64)])
    save_file(tensors, grown / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((grown / "config.json").read_text())
    config["vocab_size"] += 3
    (grown / "config.json").write_text(json.dumps(config))
    sharded = tmp_path / "sharded"
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(random_model).save_pretrained(
        sharded, max_shard_size="100KB"
    )
    lm = started(sharded, grown, ratio=100, region="all")
    state, base = lm.model.state_dict(), load_file(random_model / "model.safetensors")
    assert torch.equal(state["lm_head.weight"][:-3], base["lm_head.weight"])
    assert torch.equal(state["lm_head.weight"][-3:], torch.ones(3, 64))
