"""Adapters merged tensor by tensor against PEFT's own `merge_and_unload`, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from restoration_pairs import load, same_bytes
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from typer.testing import CliRunner

from sftknow_eval.cli.app import app
from sftknow_eval.cli.verbs import register
from sftknow_eval.drift.tensors import HELD_AS
from sftknow_eval.errors import CheckpointError, ModelError
from sftknow_eval.restoration.adapter import MergedAdapter
from sftknow_eval.restoration.checkpoint import Checkpoint

if not app.registered_commands:
    register(app)


def llama(dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_bias=True,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(dtype)


def gpt2(dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=16)
    return GPT2LMHeadModel(config).to(dtype)


LLAMA = {"target_modules": ["q_proj", "k_proj", "up_proj", "down_proj"], "r": 4, "lora_alpha": 9}
CASES: dict[str, tuple[Any, torch.dtype, dict[str, Any]]] = {
    "bfloat16": (llama, torch.bfloat16, LLAMA),
    "float16": (llama, torch.float16, LLAMA),
    "float32": (llama, torch.float32, LLAMA),
    "rank-stabilised": (llama, torch.bfloat16, LLAMA | {"use_rslora": True}),
    "patterns": (
        *(llama, torch.bfloat16),
        LLAMA
        | {
            "rank_pattern": {"layers.1.mlp.up_proj": 7, "q_proj": 2},
            "alpha_pattern": {"k_proj": 3, r"layers\.[0]\.mlp\.\w+": 5},
        },
    ),
    "head and embedding": (
        *(llama, torch.bfloat16),
        LLAMA | {"target_modules": ["embed_tokens", "lm_head", "v_proj"]},
    ),
    "saved modules": (llama, torch.bfloat16, LLAMA | {"modules_to_save": ["lm_head"]}),
    "biases": (llama, torch.bfloat16, LLAMA | {"bias": "all"}),
    "Conv1D": (
        *(gpt2, torch.bfloat16),
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 3, "fan_in_fan_out": True},
    ),
}


def make(folder: Path, case: str) -> tuple[Path, Path, Path]:
    """Write a base, a trained-looking adapter, and what PEFT makes of the two."""
    build, dtype, options = CASES[case]
    model = build(dtype)
    model.save_pretrained(folder / "base")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.02
    adapted.save_pretrained(folder / "adapter")
    again = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    merged = PeftModel.from_pretrained(again, folder / "adapter").merge_and_unload()
    merged.save_pretrained(folder / "merged")
    return folder / "base", folder / "adapter", folder / "merged"


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_merging_gives_the_bits_of_peft(tmp_path: Path, case: str) -> None:
    base, adapter, merged = make(tmp_path, case)
    expected = load(merged)
    with Checkpoint.open(base) as checkpoint:
        found = MergedAdapter(checkpoint, adapter)
        changed = 0
        for name, tensor in found.tensors.items():
            got = np.empty(tensor.nbytes, np.uint8)
            found.read(name, 0, got)
            theirs = expected[name].contiguous().view(torch.uint8).numpy().reshape(-1)
            np.testing.assert_array_equal(got, theirs, err_msg=name)
            piece = np.empty(4, np.uint8)
            found.read(name, 8, piece)
            np.testing.assert_array_equal(piece, got[8:12])
            assert tensor.dtype in HELD_AS
            own = checkpoint.array(name)
            changed += not np.array_equal(own.view(np.uint8).reshape(-1), got)
    assert changed >= 3


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_restoring_an_adapter_is_restoring_the_merged_model(tmp_path: Path) -> None:
    base, adapter, merged = make(tmp_path, "bfloat16")
    for finetuned, out in ((adapter, "a"), (merged, "m")):
        arguments = ["restore", base, finetuned, "--ratios", "5,20", "--out", tmp_path / out]
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0
    for ratio in (5, 20):
        one, other = (tmp_path / out / f"ratio-{ratio}" for out in "am")
        assert same_bytes(load(one), load(other))
        AutoModelForCausalLM.from_pretrained(one)
        assert not (one / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"use_dora": True}, "uses use_dora; only plain LoRA"),
        ({"peft_type": "IA3"}, "uses peft_type=IA3"),
        ({"init_lora_weights": "pissa"}, "uses init_lora_weights=pissa"),
        ({"target_parameters": ["mlp.experts"]}, "uses target_parameters"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_what_is_not_plain_lora_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    base, adapter, _ = make(tmp_path, "float32")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with Checkpoint.open(base) as checkpoint, pytest.raises(ModelError, match=fault):
        MergedAdapter(checkpoint, adapter)


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path / "llama", "float32")
    other, _, _ = make(tmp_path / "gpt2", "Conv1D")
    with (
        Checkpoint.open(other) as checkpoint,
        pytest.raises(CheckpointError, match=r"which the base .* does not have"),
    ):
        MergedAdapter(checkpoint, adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with Checkpoint.open(base) as checkpoint, pytest.raises(ModelError, match="unpickling"):
        MergedAdapter(checkpoint, adapter)
