"""Shared test material: small real data and small real models, made on the spot."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """EntityQuestions, which is not part of the project; where it is absent, tests are skipped."""
    path = Path(__file__).resolve().parents[2] / "shared/data/entity_questions/dataset.zip"
    if not path.is_file():
        pytest.skip(f"the EntityQuestions archive is not at {path}")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test out of the user's cache and settings."""
    monkeypatch.setenv("SFTKNOW_CACHE", str(tmp_path / "cache"))
    for name in ("SFTKNOW_DATA", "SFTKNOW_MASTERY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the archive's shape: two ID relations, one OOD, some rows to be dropped."""
    root = tmp_path_factory.mktemp("small-data")
    people = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether", "Kurt Gödel"]
    cities = ["London", "Cambridge", "New York City", "Erlangen", "Brno"]
    rows = {
        "P19": [
            {"question": f"Where was {person} born?", "answers": [city]}
            for person, city in zip(people, cities, strict=True)
        ],
        "P20": [
            {"question": f"Where did {person} die?", "answers": [city]}
            for person, city in zip(people, reversed(cities), strict=True)
        ],
        "P106": [
            {"question": f"What kind of work does {person} do?", "answers": ["mathematician"]}
            for person in people
        ],
    }
    rows["P19"].append({"question": "Where was Ada Lovelace born?", "answers": ["Paris"]})
    rows["P20"].append({"question": "Where did Sofia die?", "answers": ["Stockholm", "Moscow"]})
    for split in ("train", "dev", "test"):
        folder = root / "dataset" / split
        folder.mkdir(parents=True)
        for relation, items in rows.items():
            path = folder / f"{relation}.{split}.json"
            path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    (root / "relations.yaml").write_text(
        "P19: {label: place of birth, domain: id, question: 'Where was {subject} born?'}\n"
        "P20: {label: place of death, domain: id, question: 'Where did {subject} die?'}\n"
        "P106: {label: occupation, domain: ood, question: 'What kind of work does {subject} do?'}\n"
    )
    (root / "aliases.json").write_text(json.dumps({"New York City": ["New York"]}))
    (root / "templates.yaml").write_text(
        "P19:\n- '{subject} was born in'\n- 'The birthplace of {subject} is'\n"
        "- 'The city where {subject} came into the world is'\n"
        "P20:\n- '{subject} died in'\n- 'The place where {subject} passed away is'\n"
        "- 'The death of {subject} occurred in'\n"
        "P106:\n- 'The occupation of {subject} is'\n- '{subject} worked as a'\n"
        "- 'By profession, {subject} is a'\n"
    )
    return root


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """A Llama with random weights and a byte-level tokenizer: real files, no knowledge."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("random-model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [path.read_text(encoding="utf-8") for path in sorted(small_data.rglob("*.*"))]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini-world of size `tiny`: a data folder and, in `base/`, a model that learned it.

    `SFTKNOW_TEST_WORLD` names a ready-made one (`sftknow world --size tiny --out DIR`).
    """
    from sftknow_eval.world.build import build_world
    from sftknow_eval.world.settings import world_settings

    ready = os.environ.get("SFTKNOW_TEST_WORLD")
    folder = Path(ready) if ready else tmp_path_factory.mktemp("world") / "tiny"
    return build_world(folder, world_settings("tiny"))[0]


_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real Chromium. Without one tests are skipped, or fail if SFTKNOW_REQUIRE_BROWSER is set.

    For each module anew: while it is open, an event loop runs in this thread.
    """
    program = os.environ.get("SFTKNOW_CHROMIUM") or next(
        filter(None, map(shutil.which, _BROWSERS)), None
    )
    if program is None:
        reason = f"no browser: none of {', '.join(_BROWSERS)} is installed (apt install chromium)"
        if os.environ.get("SFTKNOW_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        browser.close()
