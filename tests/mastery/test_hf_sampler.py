"""The transformers sampler: one law, whatever is merged, batched or stopped."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.draws import draw, uniforms
from sftknow_eval.mastery.hf_model import end_ids
from sftknow_eval.mastery.hf_sampler import HfSampler
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.sampling import Request, request_seed
from sftknow_eval.mastery.templates import load_templates

PROMPTS = (
    "Ada Lovelace was born in",
    "The birthplace of Kurt Gödel is",
    "Emmy Noether died",
    "By profession, Alan Turing is a",
    "The occupation of Grace Hopper",
)


def requests(prompts: Sequence[str] = PROMPTS * 4, stops: tuple[str, ...] = ()) -> list[Request]:
    return [
        Request(i, prompt, request_seed(3, f"fact-{i}", 0), stops)
        for i, prompt in enumerate(prompts)
    ]


def world_requests(world: Path, every: int, stop: bool = False) -> list[Request]:
    """Every so-manieth (fact, template) of the world's probe."""
    data = open_dataset(world)
    templates = load_templates(data.templates_file, data.relations.values())
    pairs = [(fact, t) for fact in data.probe_facts() for t in range(templates.count)]
    return [
        Request(
            i,
            templates.prompt(fact, t),
            request_seed(0, fact.id, t),
            fact.aliases if stop else (),
        )
        for i, (fact, t) in enumerate(pairs)
        if i % every == 0
    ]


def sampled(model: Path, asked: list[Request], **settings: Any) -> dict[int, list[str]]:
    how = {"n_samples": 10, "temperature": 0.7, "max_tokens": 24} | settings
    sampler = HfSampler(model, **how)
    texts = dict(sampler.sample(asked))
    sampler.close()
    return texts


def splitmix64(state: int) -> int:
    """The published generator (Steele, Lea and Flood 2014), in plain integers."""
    mask = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


def test_uniform_numbers_are_those_of_splitmix64() -> None:
    seeds = [0, 5 << 16, (1 << 62) - (1 << 16)]
    expected = [
        (splitmix64((splitmix64(seed + j) + (7 + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53
        for seed in seeds
        for j in range(3)
    ]
    assert uniforms(seeds, 3, 7).tolist() == expected


def test_a_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    # exp(log p / 1) = p, so the cumulated probabilities are 0.5, 0.75, 0.75, 1.
    logits = torch.tensor([[0.5, 0.25, 0.0, 0.25], [0.0, 0.0, 0.0, 1.0]]).log()
    node = np.array([0, 1, 0, 0, 0])
    u = np.array([0.49, 0.0, 0.51, 0.74, 0.76])
    assert draw(logits, node, u, 1.0).tolist() == [0, 3, 1, 1, 3]


def test_merging_changes_no_completion_of_a_random_model(random_model: Path) -> None:
    plain = sampled(random_model, requests(), merge=False)
    assert sampled(random_model, requests()) == plain
    assert len({text for texts in plain.values() for text in texts}) > 150  # of 200


def test_merging_changes_no_completion_of_the_world_and_spares_rows(tiny_world: Path) -> None:
    asked = world_requests(tiny_world, every=23)
    merged, plain = (
        HfSampler(tiny_world / "base", n_samples=10, temperature=0.7, max_tokens=32, merge=merge)
        for merge in (True, False)
    )
    assert dict(merged.sample(asked)) == dict(plain.sample(asked))
    assert merged.forward_rows < plain.forward_rows / 2


def test_completions_follow_the_exact_distribution(random_model: Path) -> None:
    """Chi-square of two-token texts against the product of the model's own softmaxes."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    model = AutoModelForCausalLM.from_pretrained(random_model).double()
    start = tokenizer("Ada")["input_ids"]
    with torch.inference_mode():
        first = torch.softmax(model(torch.tensor([start])).logits[0, -1] / 0.7, -1)
        starts = torch.tensor([[*start, t] for t in range(len(first))])
        second = torch.softmax(model(starts).logits[:, -1] / 0.7, -1)
    end = tokenizer.eos_token_id
    exact: dict[str, float] = defaultdict(float)
    pairs = [(a, b) for a in range(len(first)) for b in range(len(first)) if a != end]
    texts = tokenizer.batch_decode(pairs, skip_special_tokens=True)
    for (a, b), text in zip(pairs, texts, strict=True):
        exact[text.rstrip("\ufffd")] += float(first[a] * second[a, b])
    exact[""] += float(first[end])
    assert sum(exact.values()) == pytest.approx(1)
    asked = [Request(i, "Ada", i << 16) for i in range(100)]  # streams of many seeds
    drawn = sampled(random_model, asked, n_samples=400, max_tokens=2)
    counts = Counter(text for texts in drawn.values() for text in texts)
    assert set(counts) <= set(exact)
    total = counts.total()
    common = [text for text, p in exact.items() if p * total >= 10]
    expected = [exact[text] * total for text in common]
    observed = [counts[text] for text in common]
    observed.append(total - sum(observed))
    expected.append(total - sum(expected))
    assert len(common) > 100
    assert chisquare(observed, expected).pvalue > 1e-3


def test_completions_do_not_depend_on_neighbours_batches_or_their_number(
    random_model: Path,
) -> None:
    asked = requests()
    together = sampled(random_model, asked)
    assert sampled(random_model, asked[::-1], batch_size=10, window=7) == together
    assert sampled(random_model, asked[5:6]) == {5: together[5]}
    fewer = sampled(random_model, asked, n_samples=3)
    assert fewer == {i: texts[:3] for i, texts in together.items()}
    longer = sampled(random_model, asked, max_tokens=30)
    assert all(b.startswith(a) for i in longer for a, b in zip(together[i], longer[i], strict=True))


def test_one_thread_and_a_batch_on_each_core_agree(random_model: Path) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(sampled(random_model, requests(), batch_size=30))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_requests_are_read_a_window_at_a_time(random_model: Path) -> None:
    read: list[int] = []

    def source() -> Any:
        for request in requests():
            read.append(request.index)
            yield request

    sampler = HfSampler(random_model, n_samples=2, temperature=0.7, max_tokens=2, window=6)
    results = sampler.sample(source())
    next(results)
    assert len(read) == 6
    results.close()


@pytest.mark.parametrize("stop", ["a", "\u00f6", "th"])
def test_a_stopped_completion_is_the_beginning_of_the_full_one(
    random_model: Path, stop: str
) -> None:
    full = sampled(random_model, requests())
    stopped = sampled(random_model, requests(stops=("never", stop)))
    cut = 0
    for i, texts in full.items():
        for whole, part in zip(texts, stopped[i], strict=True):
            assert whole.startswith(part)
            assert contains(part, (stop,)) == contains(whole, (stop,))
            assert contains(part, (stop,)) or part == whole
            cut += part != whole
    assert cut > 3


def test_verdicts_of_the_world_are_the_same_with_answer_stop(tiny_world: Path) -> None:
    asked = world_requests(tiny_world, every=17, stop=True)
    stopped = sampled(tiny_world / "base", asked, max_tokens=32)
    full = sampled(tiny_world / "base", world_requests(tiny_world, every=17), max_tokens=32)
    verdicts = [
        [[contains(text, r.stops) for text in texts[r.index]] for r in asked]
        for texts in (stopped, full)
    ]
    assert verdicts[0] == verdicts[1]
    assert 0.1 < np.mean(verdicts[0]) < 0.9


def test_every_end_token_ends_a_completion(random_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(random_model)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    letter = tokenizer.convert_tokens_to_ids("e")
    model.generation_config.eos_token_id = [letter, 300]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert end_ids(model, tokenizer) == [tokenizer.eos_token_id, letter, 300]
    free, ended = sampled(random_model, requests()), sampled(tmp_path, requests())
    assert any(text.endswith("e") for texts in ended.values() for text in texts)
    for i, texts in free.items():
        for whole, part in zip(texts, ended[i], strict=True):
            assert whole.startswith(part)
            assert part.endswith("e") or "e" not in tokenizer.tokenize(part)


def _architectures() -> dict[str, Any]:
    from transformers import GPT2Config, MambaConfig, MistralConfig

    return {
        "learned positions": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64),
        "sliding window": MistralConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
        ),
        "no key-value cache": MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4),
    }


@pytest.mark.parametrize("kind", ["learned positions", "sliding window", "no key-value cache"])
def test_other_architectures_merge_as_well(random_model: Path, tmp_path: Path, kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    config = _architectures()[kind]
    config.vocab_size = len(tokenizer)
    config.initializer_range = 0.3
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    merged = sampled(tmp_path, requests(), max_tokens=12)
    assert merged == sampled(tmp_path, requests(), max_tokens=12, merge=False)


def test_a_short_memory_halves_the_batch(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sampled(random_model, requests())
    inner = HfSampler._sample_batch

    def crowded(self: HfSampler, asked: list[Request], prompts: list[list[int]]) -> Any:
        if len(asked) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return inner(self, asked, prompts)

    monkeypatch.setattr(HfSampler, "_sample_batch", crowded)
    assert sampled(random_model, requests()) == expected


def test_it_says_how_it_draws(random_model: Path) -> None:
    sampler = HfSampler(
        random_model, n_samples=1, temperature=1.0, max_tokens=1, dtype="bfloat16", device="cpu"
    )
    described = sampler.describe()
    assert described["engine"] == "transformers"
    assert described["dtype"] == "bfloat16"
    assert described["versions"]["torch"] == version("torch")


class TestBadInput:
    """Each fault is an error that names it; none gives numbers."""

    @staticmethod
    def refused(model: Path | str, **settings: Any) -> str:
        how = {"n_samples": 2, "temperature": 0.7, "max_tokens": 4} | settings
        with pytest.raises((ModelError, SettingsError)) as caught:
            list(HfSampler(model, **how).sample(requests()))
        return str(caught.value)

    def test_no_such_model(self, tmp_path: Path) -> None:
        assert "does not exist" in self.refused(tmp_path / "nothing")

    def test_no_tokenizer(self, random_model: Path, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(random_model / name, tmp_path)
        assert "no tokenizer" in self.refused(tmp_path)

    def test_truncated_weights(self, random_model: Path, tmp_path: Path) -> None:
        shutil.copytree(random_model, tmp_path, dirs_exist_ok=True)
        content = (random_model / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
        assert "cannot be loaded" in self.refused(tmp_path)

    def test_a_missing_tensor(self, random_model: Path, tmp_path: Path) -> None:
        shutil.copytree(random_model, tmp_path, dirs_exist_ok=True)
        tensors = load_file(random_model / "model.safetensors")
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        message = self.refused(tmp_path)
        assert "incomplete" in message
        assert "model.layers.1.mlp.up_proj.weight" in message

    def test_weights_that_are_not_numbers(self, random_model: Path, tmp_path: Path) -> None:
        shutil.copytree(random_model, tmp_path, dirs_exist_ok=True)
        tensors = load_file(random_model / "model.safetensors")
        tensors["model.norm.weight"][0] = float("nan")
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert "not numbers" in self.refused(tmp_path)

    def test_more_tokens_than_positions(self, random_model: Path) -> None:
        assert "512 positions" in self.refused(random_model, max_tokens=510)

    def test_a_temperature_of_zero(self, random_model: Path) -> None:
        assert "temperature" in self.refused(random_model, temperature=0.0)
