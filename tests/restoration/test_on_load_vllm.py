"""vLLM's load format `sftknow` and swaps in the live engine, on the CPU in float32.

Two engines: one for what a restored model is and does, one for a model with a tied head, which
is loaded as a user of vLLM would.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from on_load_pairs import PROMPTS, damaged, finetuned, greedy
from safetensors.torch import load_file

from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.restoration.lm_eval_models import make_known
from sftknow_eval.restoration.on_load import Choice, torch_checksum
from sftknow_eval.restoration.output import save_checkpoints
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.regions import Region
from sftknow_eval.restoration.run import ModelName, opened

pytestmark = [pytest.mark.vllm]

ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": 256,
    "max_num_seqs": 8,
    "kv_cache_memory_bytes": 1 << 26,
    "use_tqdm_on_load": False,
}


def written(base: Path, tuned: Path, out: Path, region: str = "transformer") -> dict[int, Path]:
    """Write the restored checkpoints of four ratios."""
    choice = Choice(base=str(base), ratio=0, region=region)
    recipes = choice.recipes(str(tuned), None, (0, 20, 60, 100))
    with opened(ModelName(str(base)), ModelName(str(tuned))) as models:
        pair = match(*models, Region.model_validate({"name": region}))
        done = save_checkpoints(pair, recipes, out)
    return {int(entry.recipe.ratio): entry.path for entry in done if entry.recipe}


def recipe_of(base: Path, folder: Path) -> Choice:
    return Choice(base=str(base), recipe=str(folder / "recipe.json"))


def continued(llm: Any, tokens: list[int], **more: Any) -> Any:
    """Greedy continuation by vLLM, without its bar."""
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(max_tokens=12, min_tokens=12, temperature=0, **more)
    (found,) = llm.generate([TokensPrompt(prompt_token_ids=tokens)], params, use_tqdm=False)
    return found.outputs[0]


@pytest.fixture(scope="module")
def pair(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return random_model, finetuned(random_model, tmp_path_factory.mktemp("pair") / "tuned")


@pytest.fixture(scope="module")
def checkpoints(
    pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    return written(*pair, tmp_path_factory.mktemp("restored"))


@pytest.fixture(scope="module")
def engine(pair: tuple[Path, Path]) -> Iterator[Any]:
    make_known("sftknow-vllm")
    from sftknow_eval.restoration.vllm_model import RestoredVLLM

    made = RestoredVLLM(pretrained=str(pair[1]), base=str(pair[0]), ratio=20, **ENGINE)
    yield made
    made.close()


def test_disk_transformers_and_vllm_hold_the_same_bytes_and_answer_alike(
    engine: Any, pair: tuple[Path, Path], checkpoints: dict[int, Path]
) -> None:
    from transformers import AutoModelForCausalLM

    from sftknow_eval.restoration.hf_model import RestoredHF

    stored = load_file(checkpoints[20] / "model.safetensors")
    on_disk = {name: torch_checksum(tensor) for name, tensor in stored.items()}
    loaded = RestoredHF(pretrained=str(pair[1]), base=str(pair[0]), ratio=20, device="cpu")
    in_state = {n: torch_checksum(t) for n, t in loaded.model.state_dict().items()}
    assert on_disk == in_state == dict(engine.report.tensors)
    plain = AutoModelForCausalLM.from_pretrained(checkpoints[20])
    unrestored = AutoModelForCausalLM.from_pretrained(pair[1])
    differing = 0
    for prompt in PROMPTS:
        tokens = engine.tok_encode(prompt)
        answer = greedy(plain, tokens)
        assert greedy(loaded.model, tokens) == answer
        assert list(continued(engine.model, tokens).token_ids) == answer
        differing += greedy(unrestored, tokens) != answer
    assert differing  # else the answers would prove nothing


def test_swaps_in_any_order_give_each_ratio_its_answers(
    engine: Any, pair: tuple[Path, Path], checkpoints: dict[int, Path]
) -> None:
    from transformers import AutoModelForCausalLM

    answers = {}
    for ratio in (100, 0, 60, 20, 0, 100):
        report = engine.restore(recipe_of(pair[0], checkpoints[ratio]))
        assert report.ratio == ratio
        plain = AutoModelForCausalLM.from_pretrained(checkpoints[ratio])
        for prompt in PROMPTS:
            tokens = engine.tok_encode(prompt)
            answers[ratio, prompt] = list(continued(engine.model, tokens).token_ids)
            assert answers[ratio, prompt] == greedy(plain, tokens)
        assert engine.get_model_info()["restoration"]["canary"] == [report.canary]
    assert answers[0, PROMPTS[0]] != answers[100, PROMPTS[0]]


def test_without_a_reset_cached_prompts_are_of_the_weights_before(
    engine: Any, pair: tuple[Path, Path], checkpoints: dict[int, Path]
) -> None:
    """What `restore` does after a swap matters: here it is left out, then made up for."""

    def first() -> float:
        tokens = engine.tok_encode(PROMPTS[-1])
        found = continued(engine.model, tokens, logprob_token_ids=[5]).logprobs[0]
        return float(found[5].logprob)

    engine.restore(recipe_of(pair[0], checkpoints[0]))
    first()
    choice = recipe_of(pair[0], checkpoints[100]).given()
    engine.model.collective_rpc("sftknow_swap", args=(choice,))
    stale = first()
    assert engine.model.reset_prefix_cache()
    fresh = first()
    assert abs(fresh - stale) > 0.01
    engine.restore(recipe_of(pair[0], checkpoints[100]))
    assert first() == pytest.approx(fresh, abs=1e-5)


def test_a_base_that_is_damaged_midway_ends_the_engine(
    engine: Any, pair: tuple[Path, Path], checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    wrong = damaged(pair[0], tmp_path / "wrong", name)
    with pytest.raises(CheckpointError, match=f"tensor '{name}' of the base differs"):
        engine.restore(recipe_of(wrong, checkpoints[60]))
    with pytest.raises(CheckpointError, match="engine was ended"):
        engine.model.generate("Ada")


def test_the_format_is_declared_for_every_process_of_vllm() -> None:
    (plugin,) = [e for e in entry_points(group="vllm.general_plugins") if e.name == "sftknow"]
    register = plugin.load()
    register()
    register()
    from vllm.model_executor.model_loader import get_model_loader

    with pytest.raises(SettingsError, match="needs a base"):
        get_model_loader(load_config(model_loader_extra_config={}))
    with pytest.raises(SettingsError, match="exactly one of ratio"):
        get_model_loader(load_config(model_loader_extra_config={"base": "b"}))


def load_config(**settings: Any) -> Any:
    from vllm.config.load import LoadConfig

    return LoadConfig(load_format="sftknow", **settings)


def test_a_tied_head_through_vllms_own_interface(
    engine: Any, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.32 reloads a tied embedding without packing its head anew: the canary sees it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftknow_eval.restoration import vllm_worker
    from sftknow_eval.vllm_support import import_vllm

    # A CPU engine replaces it by one that does nothing: other tests need it back.
    monkeypatch.setattr(torch, "set_num_threads", torch.set_num_threads)
    engine.close()  # a process holds one engine at a time
    base = tied(random_model, tmp_path / "base")
    tuned = finetuned(base, tmp_path / "tuned")
    restored = written(base, tuned, tmp_path / "out", "all")
    llm = import_vllm("this test").LLM(
        str(tuned),
        load_format="sftknow",
        model_loader_extra_config=recipe_of(base, restored[20]).given(),
        worker_extension_cls="sftknow_eval.restoration.vllm_worker.RestorationWorker",
        **ENGINE,
    )
    try:
        tokens = AutoTokenizer.from_pretrained(base)(PROMPTS[0]).input_ids
        for ratio in (20, 100):
            if ratio != 20:
                llm.collective_rpc("sftknow_swap", args=(recipe_of(base, restored[100]).given(),))
                assert llm.reset_prefix_cache()
            plain = AutoModelForCausalLM.from_pretrained(restored[ratio])
            assert list(continued(llm, tokens).token_ids) == greedy(plain, tokens)
        (report,) = llm.collective_rpc("sftknow_report")
        assert report["ratio"] == 100
        monkeypatch.setattr(vllm_worker, "pack_tied_heads", lambda model: None)
        with pytest.raises(CheckpointError, match="canary failed: the layer 'lm_head' computes"):
            llm.collective_rpc("sftknow_swap", args=(recipe_of(base, restored[0]).given(),))
        # Nobody can compute with the torn weights, whatever the caller does with the error.
        with pytest.raises(CheckpointError, match="engine was ended"):
            llm.collective_rpc("sftknow_report")
        with pytest.raises(CheckpointError, match="engine was ended"):
            continued(llm, tokens)
    finally:
        llm.llm_engine.engine_core.shutdown()
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def tied(model: Path, out: Path) -> Path:
    """Copy a model with its head tied to its embedding."""
    from safetensors.torch import save_file

    shutil.copytree(model, out)
    tensors = load_file(model / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    return out


def test_reports_travel_as_plain_values(engine: Any) -> None:
    """They come over an engine's own wire: only plain values do."""
    json.dumps(dataclasses.asdict(engine.report))
