"""Short greedy answers are those of lm-eval's own method; other requests are left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.prompts import paper_prompt
from sftknow_eval.restoration.greedy import GreedyHF

GREEDY = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 16, "until": []}


def requests(texts: list[str], **settings: Any) -> list[Instance]:
    return [
        Instance("generate_until", {}, (text, {**GREEDY, **settings}), number)
        for number, text in enumerate(texts)
    ]


def questions(data: Path) -> list[str]:
    facts = open_dataset(data).probe_facts(splits=("test",))
    assert len({len(fact.question) for fact in facts}) > 5  # so that prompts are padded
    return [paper_prompt(fact.question) for fact in facts]


@pytest.fixture(params=["tiny_world", "random_model"])
def material(request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    """A base whose answers end after a few tokens, and a model whose answers hardly ever end."""
    if request.param == "tiny_world":
        world: Path = request.getfixturevalue("tiny_world")
        return world / "base", questions(world)[:150]
    data: Path = request.getfixturevalue("small_data")
    return request.getfixturevalue("random_model"), questions(data)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_answers_are_lm_evals(
    material: tuple[Path, list[str]], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, texts = material
    model = GreedyHF(str(folder), device="cpu", batch_size=batch)
    asked = requests(texts if batch > 1 else texts[:10])
    wanted = HFLM.generate_until(model, asked, disable_tqdm=True)
    monkeypatch.setattr(GreedyHF, "_as_lm_eval", _refuse)
    assert model.generate_until(asked, disable_tqdm=True) == wanted
    assert any(wanted)


def _refuse(self: Any, *_: Any) -> list[str]:
    raise AssertionError("the requests were left to lm-eval")


def test_other_requests_are_left_to_lm_eval(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GreedyHF(str(random_model), device="cpu", batch_size=4)
    texts = ["Where was Ada", "Where did Emmy Noether die"]
    wanted = HFLM.generate_until(model, requests(texts, until=["a"]), disable_tqdm=True)
    assert model.generate_until(requests(texts, until=["a"]), disable_tqdm=True) == wanted
    # Stop texts, sampling, a begin token in some of the texts, a penalty in the model's own
    # settings, an end token that does not end generation: lm-eval's affair.
    monkeypatch.setattr(GreedyHF, "_as_lm_eval", lambda self, asked, quiet: ["lm-eval"])
    for settings in ({"until": ["\n"]}, {"do_sample": True}, {"repetition_penalty": 1.2}):
        assert model.generate_until(requests(texts, **settings)) == ["lm-eval"]
    assert model.generate_until(requests(["<s>Where", "Where"])) == ["lm-eval"]
    assert model.generate_until([]) == ["lm-eval"]
    config = model._model.generation_config
    for name, value in (("repetition_penalty", 1.2), ("eos_token_id", 5)):
        with monkeypatch.context() as patched:
            patched.setattr(config, name, value)
            assert model.generate_until(requests(texts)) == ["lm-eval"]
    assert model.generate_until(requests(texts)) != ["lm-eval"]
