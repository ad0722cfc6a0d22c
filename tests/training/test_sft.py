"""Training through TRL: what reaches the model, what it does to it, what it tells nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow_eval.errors import MissingDependency, ModelError, SettingsError, TrainingDiverged
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.training.encode import encode_fact
from sftknow_eval.training.processes import Processes
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.sft import Job, require_trl, train

ANSWERS = ["London", "Cambridge", "New York City", "Erlangen", "Brno"]
FACTS = [
    Fact(f"P19-train-{i:04d}", "P19", "id", "train", "S", f"Where was {a} born?", a, (a,))
    for i, a in enumerate(ANSWERS)
]
FAST = TrainSettings(learning_rate=1e-2, batch_size=2, epochs=3)


@pytest.fixture
def tokenizer(random_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(random_model)


@pytest.fixture
def model(random_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)


@pytest.fixture
def examples(tokenizer: Any) -> list[dict[str, list[int]]]:
    return [encode_fact(tokenizer, fact) for fact in FACTS]


def test_the_model_sees_exactly_the_encoded_facts(
    model: Any, tokenizer: Any, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[int]]] = []
    compute_loss = trl.SFTTrainer.compute_loss

    def recording(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for ids, labels, mask in zip(
            inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True
        ):
            length = int(mask.sum())
            assert (labels[length:] == -100).all()
            seen.append((ids[:length].tolist(), labels[:length].tolist()))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", recording)
    once = TrainSettings(learning_rate=1e-3, batch_size=2)
    train(lambda: model, tokenizer, Job(examples=examples, settings=once, seed=0))
    assert sorted(seen) == sorted((e["input_ids"], e["labels"]) for e in examples)


def test_the_loss_is_the_mean_over_target_tokens(model: Any, tokenizer: Any, examples: Any) -> None:
    # Expected: the first batch is all facts, its loss that of the untouched model, computed
    # here token by token.
    log_probabilities = []
    for example in examples:
        ids = torch.tensor([example["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        labels = example["labels"][1:]
        log_probabilities += [float(logits[i, t]) for i, t in enumerate(labels) if t != -100]
    expected = -sum(log_probabilities) / len(log_probabilities)
    settings = TrainSettings(learning_rate=1e-6, batch_size=len(examples))
    curve = train(
        lambda: model, tokenizer, Job(examples=examples, settings=settings, seed=0)
    ).losses
    assert curve == [(1, pytest.approx(expected, rel=1e-3))]


def test_training_lowers_the_loss_and_reports_each_step(
    model: Any, tokenizer: Any, examples: Any
) -> None:
    steps: list[tuple[int, int]] = []
    curve = train(
        *(lambda: model, tokenizer, Job(examples=examples, settings=FAST, seed=0)),
        on_step=lambda done, total, loss: steps.append((done, total)),
    ).losses
    assert steps == [(i, 9) for i in range(1, 10)]  # 3 batches of 5 facts, 3 epochs
    assert curve[-1][1] < 0.7 * curve[0][1]


def test_a_diverging_training_is_an_error(model: Any, tokenizer: Any, examples: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("inf")
    with pytest.raises(TrainingDiverged, match="diverged: the loss is nan at step"):
        train(lambda: model, tokenizer, Job(examples=examples, settings=FAST, seed=0))


def test_weights_that_are_no_numbers_are_an_error_even_if_the_loss_is_fine(
    model: Any, tokenizer: Any, examples: Any
) -> None:
    unused = next(
        i for i in range(len(tokenizer)) if all(i not in e["input_ids"] for e in examples)
    )
    with torch.no_grad():
        model.model.embed_tokens.weight[unused, 0] = float("nan")
    with pytest.raises(ModelError, match=r"'model.embed_tokens.weight' is no longer finite"):
        train(lambda: model, tokenizer, Job(examples=examples, settings=FAST, seed=0))


def test_training_is_silent_and_reports_to_nobody(
    model: Any,
    tokenizer: Any,
    examples: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _telemetry

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", lambda: pytest.fail("telemetry"))
    train(lambda: model, tokenizer, Job(examples=examples, settings=FAST, seed=0))
    assert constants.HF_HUB_DISABLE_TELEMETRY is False
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value"), [("dtype", "bfloat16"), ("autocast", True), ("gradient_checkpointing", True)]
)
def test_the_ways_to_save_memory_and_time_train_too(
    random_model: Path, tokenizer: Any, examples: Any, name: str, value: Any
) -> None:
    settings = dataclasses.replace(FAST, **{name: value})
    dtype = getattr(torch, settings.dtype)
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=dtype)
    curve = train(
        lambda: model, tokenizer, Job(examples=examples, settings=settings, seed=0)
    ).losses
    assert curve[-1][1] < 0.8 * curve[0][1]
    assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_bad_settings_are_listed_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        TrainSettings(learning_rate=0, batch_size=-1, lr_scheduler="wave", weight_decay=-1)
    message = str(caught.value)
    for name in ("learning_rate is 0", "batch_size is -1", "'wave'", "weight_decay is -1"):
        assert name in message


def test_missing_trl_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(MissingDependency, match=r'pip install "sftknow-eval\[train\]"'):
        require_trl()


def test_a_batch_that_cannot_be_divided_over_processes_is_refused() -> None:
    settings = TrainSettings(batch_size=8)
    assert Processes(0, 2).rows(settings, 2) == 2
    with pytest.raises(SettingsError, match="a multiple of 6"):
        Processes(0, 3).rows(settings, 2)


def test_settings_of_the_trainer_reach_it(model: Any, tokenizer: Any, examples: Any) -> None:
    # Expected: dynamic fine-tuning weighs each token's loss by its probability, so that the
    # loss of an untrained model is near 0 and not near the logarithm of the vocabulary.
    settings = TrainSettings(learning_rate=1e-6, batch_size=len(examples))
    job = Job(examples=examples, settings=settings, seed=0, trainer={"loss_type": "dft"})
    assert train(lambda: model, tokenizer, job).losses[0][1] < 0.5


@pytest.mark.parametrize(
    ("trainer", "adapter", "expected"),
    [
        ({"optim": "adamm"}, None, "TRL refuses"),
        ({"fsdp": "full_shard"}, None, "only works in distributed training"),
        ({}, ("LORA", {"r": 0, "target_modules": "all-linear"}), "PEFT refuse"),
        ({}, ("LORA", {"target_modules": ["w_o_w"]}), "PEFT refuse"),
    ],
)
def test_what_trl_or_peft_refuse_is_said_in_their_words(
    model: Any, tokenizer: Any, examples: Any, trainer: Any, adapter: Any, expected: str
) -> None:
    job = Job(examples=examples, settings=FAST, seed=0, trainer=trainer, adapter=adapter)
    with pytest.raises(SettingsError, match=expected):
        train(lambda: model, tokenizer, job)
