"""Token drift of the tiny world's fine-tune: against logits of single prompts, and on vLLM."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import log_softmax

from sftknow_eval.errors import OtherBase, SettingsError
from sftknow_eval.evaluation.tokens.measure import token_drift
from sftknow_eval.evaluation.tokens.request import TokenDriftRequest, prepare
from sftknow_eval.evaluation.tokens.vocabulary import shared_vocabulary
from sftknow_eval.mastery.matching import begins, may_begin

MEASURED = ("kl_top10", "kl_full_finetuned_base", "kl_full_base_finetuned")


@pytest.fixture
def request_of(tiny_world: Path, tuned: Path, tiny_mastery: Path) -> Any:
    def make(**changes: Any) -> TokenDriftRequest:
        metadata = {"mastery": str(tiny_mastery), "data": str(tiny_world)}
        settings = {"base": str(tiny_world / "base"), "finetuned": str(tuned), "metadata": metadata}
        return TokenDriftRequest(**{**settings, **changes})

    return make


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(folder / "token_drift.parquet")
    return {row["fact_id"]: row for row in table.to_pylist()}


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def logits(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1].double().numpy()


def test_every_fact_is_what_single_prompts_give(
    request_of: Any, tiny_world: Path, tuned: Path, tmp_path: Path
) -> None:
    """Prompts one by one through transformers, divergences by SciPy, completions by generate."""
    found = token_drift(request_of(), tmp_path)
    measured = rows(tmp_path)
    assert len(measured) == 120
    comparison = prepare(request_of())
    (base, tokenizer), (finetuned, _) = load(tiny_world / "base"), load(tuned)
    counted = []
    for fact in comparison.facts:
        row = measured[fact.document["id"]]
        asked = tokenizer.decode(fact.finetuned_tokens)
        assert asked == f"<s><|question|> {fact.document['question']} <|answer|>"
        theirs, ours = logits(finetuned, fact.finetuned_tokens), logits(base, fact.base_tokens)
        top = np.argsort(-theirs, kind="stable")[:10]
        p, q = log_softmax(theirs[top]), log_softmax(ours[top])
        whole_p, whole_q = log_softmax(theirs), log_softmax(ours)
        assert [row[name] for name in MEASURED] == pytest.approx(
            [
                (np.exp(p) * (p - q)).sum(),
                (np.exp(whole_p) * (whole_p - whole_q)).sum(),
                (np.exp(whole_q) * (whole_q - whole_p)).sum(),
            ],
            abs=2e-5,
        )
        prompt = torch.tensor([fact.base_tokens])
        written = base.generate(prompt, max_new_tokens=16, do_sample=False)
        text = tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
        first = any(text.lstrip().startswith(alias) for alias in fact.document["aliases"])
        assert row["answer_first"] == first
        if first and fact.document["domain"] == "id" and fact.document["stratum"] == 4:
            counted.append(row["kl_top10"])
    assert {row["answer_first"] for row in measured.values()} == {True, False}
    overall = found["overall"]["kl_top10"]
    assert overall["n"] == len(counted) == found["protocol"]["facts"] > 0
    assert overall["mean"] == pytest.approx(np.mean(counted))
    assert overall["median"] == pytest.approx(np.median(counted))
    assert overall["p95"] == pytest.approx(np.percentile(counted, 95))
    assert sum(r["kl_top10"]["n"] for r in found["relations"].values()) == len(counted)
    assert sum(entry["all"]["kl_top10"]["n"] for entry in found["strata"]) == 120
    assert found["vocabulary"]["finetuned_left_out"] == 0
    assert json.loads((tmp_path / "token_drift.json").read_text()) == found


@pytest.fixture
def adapter(tiny_world: Path, tmp_path: Path) -> Path:
    """A LoRA with drawn factors on the tiny base."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(load(tiny_world / "base")[0], settings).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def test_an_adapter_is_measured_like_the_model_it_makes(
    request_of: Any, tiny_world: Path, adapter: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    model, tokenizer = load(tiny_world / "base")
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    common = {"style": "paper", "limit": 4}
    found = token_drift(request_of(finetuned=str(adapter), **common), tmp_path / "a")
    token_drift(request_of(finetuned=str(tmp_path / "merged"), **common), tmp_path / "b")
    one, other = rows(tmp_path / "a"), rows(tmp_path / "b")
    for name, row in one.items():
        assert [row[m] for m in MEASURED] == pytest.approx([other[name][m] for m in MEASURED], 1e-4)
    assert found["finetuned"]["adapter"]["kind"] == "LORA"
    again = token_drift(request_of(finetuned=str(adapter), **common), tmp_path / "c")
    assert again == found


def test_batches_do_not_matter(request_of: Any, tmp_path: Path) -> None:
    for size in (1, 7, 64):
        token_drift(request_of(batch_size=size, limit=4), tmp_path / str(size))
    one, other, third = (rows(tmp_path / str(size)) for size in (1, 7, 64))
    for name, row in one.items():
        for measure in MEASURED:
            assert row[measure] == pytest.approx(other[name][measure], abs=1e-5)
            assert row[measure] == pytest.approx(third[name][measure], abs=1e-5)
        assert row["answer_first"] == other[name]["answer_first"] == third[name]["answer_first"]


def test_tokens_that_the_fine_tune_added_are_left_out_and_counted(
    request_of: Any, tuned: Path, tmp_path: Path
) -> None:
    model, tokenizer = load(tuned)
    tokenizer.add_tokens(["<|one|>", "<|two|>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():  # the new tokens would be the likeliest of all
        model.get_output_embeddings().weight[-2:] = 0
        model.get_output_embeddings().weight[-1] = model.get_output_embeddings().weight[5] * 9
    grown = tmp_path / "grown"
    shutil.copytree(tuned, grown)
    model.save_pretrained(grown)
    tokenizer.save_pretrained(grown)
    found = token_drift(request_of(finetuned=str(grown)), tmp_path / "grown-drift")
    token_drift(request_of(), tmp_path / "drift")
    before = found["vocabulary"]["base"]
    assert found["vocabulary"] == {
        "base": before,
        "finetuned": before + 2,
        "shared": before,
        "finetuned_left_out": 2,
    }
    ours, theirs = rows(tmp_path / "drift"), rows(tmp_path / "grown-drift")
    for name, row in ours.items():
        assert theirs[name]["kl_top10"] == pytest.approx(row["kl_top10"], abs=1e-5)


class Spelling:
    """A tokenizer as far as its vocabulary goes."""

    def __init__(self, tokens: str) -> None:
        self._tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self._tokens)}


def test_only_ids_that_both_spell_alike_are_shared() -> None:
    # Id 1 was put to another use; ids 4 and 5 pad both output layers.
    shared = shared_vocabulary(Spelling("abcd"), Spelling("aXcd"), 6, 7)
    assert shared.ids.tolist() == [0, 2, 3, 4, 5]
    assert shared.of(torch.arange(7.0)[None]).tolist() == [[0, 2, 3, 4, 5]]
    assert shared.left_out == 2
    with pytest.raises(OtherBase, match="spell only 1 of 4"):
        shared_vocabulary(Spelling("abcd"), Spelling("aXYZ"), 4, 4)


def test_a_completion_is_read_until_it_can_only_turn_out_one_way() -> None:
    aliases = ("New York", "Córdoba")
    assert begins(" New York City", aliases)
    assert not begins("the New York", aliases)
    assert may_begin(" New", aliases)
    assert may_begin("", aliases)
    assert may_begin(" C\ufffd", aliases)  # half of the accented letter is written
    assert not may_begin(" Newark", aliases)


def test_faults_are_named(request_of: Any, tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="style 'completion' is the base's"):
        prepare(request_of(style="completion"))
    with pytest.raises(SettingsError, match="no chat template"):
        prepare(request_of(style="chat"))
    with pytest.raises(SettingsError, match="takes no argument 'max_model_len'"):
        token_drift(request_of(engine_args={"max_model_len": 3}))
    with pytest.raises(SettingsError, match="limit is 0"):
        request_of(limit=0)


def sftknow(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sftknow_eval", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_command_as_a_user_types_it(
    tiny_world: Path, tuned: Path, tiny_mastery: Path, tmp_path: Path
) -> None:
    given = ("drift", "tokens", tiny_world / "base", tuned, "--mastery", tiny_mastery)
    done = sftknow(*given, "--limit", 4, "--json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "token_drift.json").read_text())
    refused = sftknow(*given[:4], "--mastery", tmp_path / "nowhere")
    assert refused.returncode == 2
    assert "does not exist" in refused.stderr


@pytest.mark.vllm
def test_vllm_agrees_with_transformers(
    tiny_world: Path, tuned: Path, tiny_mastery: Path, tmp_path: Path
) -> None:
    """In float32, every fact within 1e-4 nats, and the same completions count."""
    given = ("drift", "tokens", tiny_world / "base", tuned, "--mastery", tiny_mastery)
    for backend in ("hf", "vllm"):
        done = sftknow(*given, "--backend", backend, "--out", tmp_path / backend)
        assert done.returncode == 0, done.stderr
    exact, served = rows(tmp_path / "hf"), rows(tmp_path / "vllm")
    assert exact.keys() == served.keys()
    for name, row in exact.items():
        assert served[name]["kl_top10"] == pytest.approx(row["kl_top10"], abs=1e-4)
        assert served[name]["answer_first"] == row["answer_first"]
        # vLLM is not asked for whole distributions: missing, not 0.
        assert served[name]["kl_full_finetuned_base"] is None
        assert row["kl_full_finetuned_base"] is not None
