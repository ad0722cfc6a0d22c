"""Adapters and chat models as fine-tunes: against the same weights merged by PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.errors import MasteryError, ModelError, OtherBase, SettingsError
from sftknow_eval.evaluation.adapters import find_adapter
from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate
from sftknow_eval.evaluation.facts_file import read_outcomes
from sftknow_eval.models import weight_fingerprint


@pytest.fixture(scope="module")
def adapter(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with drawn factors on the tiny base, saved by PEFT alone: no training record."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "lora"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_world / "base")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def merged(tiny_world: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fine-tune as a whole model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("merged") / "model"
    model = AutoModelForCausalLM.from_pretrained(tiny_world / "base")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_world / "base").save_pretrained(folder)
    return folder


def asked(world: Path, mastery: Path, finetuned: Path, **options: Any) -> EvaluationRequest:
    """Return a request on few facts; the paper's prompt, as these models know no other."""
    metadata = {"data": str(world), "mastery": str(mastery)}
    return EvaluationRequest(
        finetuned=str(finetuned), metadata=metadata, limit=4, **{"style": "paper", **options}
    )


@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_an_adapter_answers_like_the_merged_model(
    backend: Any, tiny_world: Path, tiny_mastery: Path, adapter: Path, merged: Path, tmp_path: Path
) -> None:
    for name, model in (("adapter", adapter), ("merged", merged)):
        evaluate(asked(tiny_world, tiny_mastery, model, backend=backend), tmp_path / name)
    ours, expected = (
        {o.fact_id: o.output for o in read_outcomes(tmp_path / name, "finetuned")}
        for name in ("adapter", "merged")
    )
    assert ours == expected
    base = {o.fact_id: o.output for o in read_outcomes(tmp_path / "adapter", "base")}
    assert base.keys() == ours.keys()
    assert base != ours


def test_the_base_is_stated_with_where_it_comes_from(
    tiny_world: Path, tiny_mastery: Path, adapter: Path, tmp_path: Path
) -> None:
    evaluate(asked(tiny_world, tiny_mastery, adapter), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["base"]["base_from"] == "adapter_config.json"
    assert found["base"]["fingerprint"] == weight_fingerprint(tiny_world / "base")
    assert found["finetuned"]["fingerprint"] == weight_fingerprint(adapter)
    assert found["finetuned"]["adapter"] == {
        "kind": "LORA",
        "base": str(tiny_world / "base"),
        "base_from": "adapter_config.json",
        "base_fingerprint": weight_fingerprint(tiny_world / "base"),
    }


def changed(adapter: Path, folder: Path, **settings: Any) -> Path:
    """Return a copy of the adapter with other settings."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_a_copy_of_the_base_is_as_good_as_the_base(
    tiny_world: Path, adapter: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_world / "base", copy)
    found = find_adapter(str(adapter), base=str(copy))
    assert found is not None
    assert (found.base, found.base_from) == (str(copy), "asked for")


def test_another_base_is_refused(adapter: Path, random_model: Path, tiny_world: Path) -> None:
    with pytest.raises(OtherBase, match=r"was made from .*base.* with the weight fingerprint"):
        find_adapter(str(adapter), base=str(random_model))


def test_a_base_that_is_not_here_or_not_named_is_asked_for(adapter: Path, tmp_path: Path) -> None:
    away = changed(adapter, tmp_path / "away", base_model_name_or_path="/nowhere/base")
    with pytest.raises(ModelError, match=r"'/nowhere/base', and that is not here.*--base"):
        find_adapter(str(away))
    silent = changed(adapter, tmp_path / "silent", base_model_name_or_path=None)
    with pytest.raises(ModelError, match="does not say which base"):
        find_adapter(str(silent))


def test_a_base_that_was_not_probed_is_refused(
    adapter: Path, random_model: Path, tiny_world: Path, tiny_mastery: Path, tmp_path: Path
) -> None:
    silent = changed(adapter, tmp_path / "silent", base_model_name_or_path=None)
    request = asked(tiny_world, tiny_mastery, silent, base=str(random_model))
    with pytest.raises(MasteryError, match="weight fingerprint"):
        evaluate(request, tmp_path / "out")


def test_what_is_no_adapter_configuration_is_named(adapter: Path, tmp_path: Path) -> None:
    broken = changed(adapter, tmp_path / "broken", peft_type=None)
    with pytest.raises(ModelError, match="no 'peft_type'"):
        find_adapter(str(broken))
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        find_adapter(str(broken))


def test_a_whole_model_is_no_adapter(tiny_world: Path) -> None:
    assert find_adapter(str(tiny_world / "base")) is None


@pytest.mark.parametrize("settings", [{"peft_type": "LOHA"}, {"r": 1000}])
def test_vllm_refuses_what_it_cannot_load(
    settings: dict[str, Any], adapter: Path, tmp_path: Path
) -> None:
    found = find_adapter(str(changed(adapter, tmp_path / "other", **settings)))
    assert found is not None
    with pytest.raises(SettingsError, match="--backend hf"):
        found.model_args("vllm")
    assert found.model_args("hf")["peft"] == str(tmp_path / "other")


def test_a_chat_model_is_asked_through_its_template(
    tiny_world: Path, tiny_mastery: Path, merged: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    chat = tmp_path / "chat"
    shutil.copytree(merged, chat)
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.save_pretrained(chat)
    evaluate(asked(tiny_world, tiny_mastery, chat, style=None), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (found["finetuned"]["style"], found["finetuned"]["style_from"]) == (
        "chat",
        "chat template",
    )
    prompts = [o.prompt for o in read_outcomes(tmp_path / "out", "finetuned")]
    assert all("[user] Answer in a few words." in prompt for prompt in prompts)
    assert all(prompt.endswith("[assistant]") for prompt in prompts)
    assert found["base"]["style"] == "completion"
