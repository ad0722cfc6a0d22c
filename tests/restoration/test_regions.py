"""Roles by name over real model families: built by transformers, so the names are real."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sftknow_eval.errors import SettingsError
from sftknow_eval.restoration.checkpoint import StoredTensor
from sftknow_eval.restoration.regions import Region, names_seen, parse_layers, part_of

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
NEOX = {
    **{"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24},
    **{"num_hidden_layers": 2, "num_attention_heads": 2},
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SMALL, attention_bias=True),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "mistral": MistralConfig(**SMALL),
    "mixtral": MixtralConfig(**SMALL, num_local_experts=2),
    "gemma": GemmaConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2),
    "neox": GPTNeoXConfig(**NEOX),
    "opt": OPTConfig(
        **{"vocab_size": 40, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "word_embed_proj_dim": 16},
    ),
}


def tensors_of(config: PreTrainedConfig) -> dict[str, StoredTensor]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {
        name: StoredTensor(name, "BF16", tuple(parameter.shape), "f", 0)
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_papers_region_is_every_layer_weight_but_norms(family: str) -> None:
    """Counted by hand from the modules: attention and MLP of each layer, two layers."""
    tensors = tensors_of(FAMILIES[family])
    region = Region().select(tensors, family)
    expected = {
        **{"llama": 2 * (8 + 3), "qwen2": 2 * (7 + 3), "qwen3": 2 * 7, "mistral": 2 * 7},
        **{"mixtral": 2 * (4 + 3), "gemma": 2 * 7, "gpt2": 2 * 8, "neox": 2 * 8, "opt": 2 * 12},
    }
    assert len(region) == expected[family]
    assert not any("norm" in name or ".ln_" in name for name in region)
    assert {part.layer for part in region.values()} == {0, 1}
    attention = Region(name="attention").select(tensors, family)
    mlp = Region(name="mlp").select(tensors, family)
    assert not attention.keys() & mlp.keys()
    assert attention.keys() | mlp.keys() == region.keys()
    embedding = Region(name="embedding").select(tensors, family)
    assert 1 <= len(embedding) <= 2
    whole = Region(name="all").select(tensors, family)
    assert whole.keys() == region.keys() | embedding.keys()


def test_whole_layers_can_be_chosen() -> None:
    """Table 11: whole layer ranges."""
    tensors = tensors_of(FAMILIES["gpt2"])
    chosen = Region(layers=(1,)).select(tensors, "gpt2")
    assert {part.layer for part in chosen.values()} == {1}
    assert len(chosen) == 8


def test_patterns_add_and_take_away() -> None:
    tensors = tensors_of(FAMILIES["llama"])
    region = Region(name="attention", include=("*norm.weight",), exclude=("*.k_proj.*",))
    chosen = region.select(tensors, "llama")
    assert "model.norm.weight" in chosen
    assert not any("k_proj" in name for name in chosen)


@pytest.mark.parametrize(
    ("name", "shape", "role", "module"),
    [
        ("model.layers.3.block_sparse_moe.gate.weight", (8, 16), "mlp", "block_sparse_moe.gate"),
        (
            *("model.layers.3.block_sparse_moe.experts.7.w1.weight", (8, 16), "mlp"),
            "block_sparse_moe.experts.*.w1",
        ),
        ("model.layers.3.self_attn.q_norm.weight", (8,), "norm", "self_attn.q_norm"),
        ("h.0.attn.bias", (1, 1, 8, 8), "buffer", "attn.bias"),
        ("h.0.attn.c_attn.bias", (24,), "attention", "attn.c_attn.bias"),
        ("h.0.ln_1.weight", (8,), "norm", "ln_1"),
        ("transformer.wpe.weight", (8, 8), "embedding", "transformer.wpe"),
        ("gpt_neox.layers.1.attention.rotary_emb.inv_freq", (4,), "buffer", None),
        ("gpt_neox.layers.1.attention.dense.bias", (4,), "attention", "attention.dense.bias"),
        ("model.decoder.layers.1.fc1.weight", (4, 4), "mlp", "fc1"),
        ("vision_tower.encoder.layers.1.mlp.fc1.weight", (4, 4), "tower", None),
        ("model.language_model.layers.1.mlp.up_proj.weight", (4, 4), "mlp", "mlp.up_proj"),
        ("score.weight", (4, 4), "outside", "score"),
    ],
)
def test_names_tell_roles(name: str, shape: tuple[int, ...], role: str, module: str | None) -> None:
    part = part_of(name, shape)
    assert part.role == role
    assert module is None or part.module == module


def test_a_region_that_selects_nothing_lists_the_names_seen() -> None:
    tensors = {"a.3.w": StoredTensor("a.3.w", "BF16", (2, 2), "f", 0)}
    with pytest.raises(SettingsError, match=r"selects no tensor of x\. Names seen: a\.\*\.w"):
        Region().select(tensors, "x")
    assert names_seen(["a.1.b", "a.2.b", "c"]) == ["a.*.b", "c"]


@pytest.mark.parametrize(
    ("text", "layers"), [("0-3", (0, 1, 2, 3)), ("7,0-1", (0, 1, 7)), (" 2 - 3 ", (2, 3))]
)
def test_layer_lists_are_read(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text) == layers
