"""A sweep over an adapter: the curve of the same weights merged by PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sftknow_eval.evaluation.facts_file import read_outcomes
from sftknow_eval.sweep.run import sweep

RATIOS = (0, 20)


@pytest.fixture(scope="module")
def lora(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA with drawn factors on the small base, and the same weights merged by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(random_model), config)
    model.save_pretrained(root / "adapter")
    model.merge_and_unload().save_pretrained(root / "merged")
    AutoTokenizer.from_pretrained(random_model).save_pretrained(root / "merged")
    return {name: root / name for name in ("adapter", "merged")}


@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_an_adapter_is_swept_like_the_merged_model(
    backend: Any, lora: dict[str, Path], request_of: Any, tmp_path: Path
) -> None:
    answers = {}
    for name, model in lora.items():
        out = tmp_path / name
        request = request_of(finetuned=str(model), ratios=RATIOS, backend=backend, engine_args={})
        found = sweep(request, out)
        assert found["finetuned"] == str(model)
        assert not (out / "merged").exists()
        answers[name] = [
            [o.output for o in read_outcomes(out / f"ratio-{ratio}", "finetuned")]
            for ratio in RATIOS
        ]
    assert answers["adapter"] == answers["merged"]
    assert answers["adapter"][0] != answers["adapter"][1]
