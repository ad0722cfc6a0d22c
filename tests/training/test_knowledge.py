"""A panel measured during anybody's training: what it says, and that it disturbs nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sftknow_eval.errors import MasteryError, ModelError, SettingsError
from sftknow_eval.evaluation.compare import Transitions
from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.training import KnowledgeCallback
from sftknow_eval.training.draw import Ask, Pool
from sftknow_eval.training.draws.stratum import draw
from sftknow_eval.training.encode import encode_fact
from sftknow_eval.training.panel import Measurement, answers, measured, panel_documents


class Recorder(TrainerCallback):
    """Stands for a logger such as wandb: gets what `Trainer.log` gives to callbacks."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs.append({**logs, "step": state.global_step})


class Material:
    """The tiny world's base and 24 facts of stratum 0, encoded."""

    def __init__(self, world: Path, mastery: Path) -> None:
        self.world, self.mastery = world, mastery
        self.tokenizer = AutoTokenizer.from_pretrained(world / "base")
        pool = Pool(open_dataset(world), MasteryTable.read(mastery))
        facts = draw(pool, Ask(0, 24, 0)).facts
        self.examples = [encode_fact(self.tokenizer, fact) for fact in facts]

    def model(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.world / "base", dtype=torch.float32)

    def watch(self, **options: Any) -> KnowledgeCallback:
        settings = {"mastery": self.mastery, "data": self.world, "per_stratum": 5, **options}
        return KnowledgeCallback(**settings)

    def trainer(self, folder: Path, model: Any, callbacks: Any, **options: Any) -> Trainer:
        settings = {
            **{"output_dir": str(folder), "learning_rate": 1e-3, "num_train_epochs": 2},
            **{"per_device_train_batch_size": 8, "logging_steps": 1, "report_to": "none"},
            **{"save_strategy": "no", "disable_tqdm": True, "seed": 0, "use_cpu": True},
            **{"dataloader_pin_memory": False, **options},
        }
        return Trainer(
            model=model,
            args=TrainingArguments(**settings),
            train_dataset=Dataset.from_list(self.examples),
            eval_dataset=Dataset.from_list(self.examples[:4]),
            processing_class=self.tokenizer,
            data_collator=self.collate,
            callbacks=callbacks,
        )

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        pad = self.tokenizer.eos_token_id

        def padded(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

        ids = padded("input_ids", pad)
        mask = torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        )
        return {"input_ids": ids, "labels": padded("labels", -100), "attention_mask": mask}


@pytest.fixture(scope="module")
def material(tiny_world: Path, tiny_table: Path) -> Material:
    return Material(tiny_world, tiny_table)


def test_kept_lost_and_gained_are_counted_by_stratum() -> None:
    # By hand: three facts of stratum 4 (kept, lost, lost), one of stratum 0 (gained).
    panel = [{"stratum": stratum} for stratum in (4, 4, 4, 0)]
    found = measured(7, panel, [True, True, True, False], [True, False, False, True])
    assert found.strata[4] == Transitions(kept=1, lost=2)
    assert found.strata[0] == Transitions(gained=1)
    assert found.lost_share([4]) == found.lost_share(range(5)) == pytest.approx(2 / 3)
    assert found.lost_share([0]) is None
    assert found.metrics() == {
        "knowledge/stratum_0/kept": 0,
        "knowledge/stratum_0/lost": 0,
        "knowledge/stratum_0/gained": 1,
        "knowledge/stratum_4/kept": 1,
        "knowledge/stratum_4/lost": 2,
        "knowledge/stratum_4/gained": 0,
        "knowledge/stratum_4/lost_share": pytest.approx(2 / 3),
        "knowledge/lost_share": pytest.approx(2 / 3),
    }


def test_a_plain_trainer_logs_what_is_kept_and_lost(material: Material, tmp_path: Path) -> None:
    watch, recorder = material.watch(every=2), Recorder()
    trainer = material.trainer(tmp_path, material.model(), [recorder, watch])
    assert watch.attach(trainer) is watch
    assert trainer.callback_handler.callbacks.count(watch) == 1
    trainer.train()
    assert [found.step for found in watch.measurements] == [0, 2, 4, 6]
    logged = [entry for entry in recorder.logs if "knowledge/lost_share" in entry]
    assert [entry["step"] for entry in logged] == [0, 2, 4, 6]
    for entry, found in zip(logged, watch.measurements, strict=True):
        assert found.metrics().items() <= entry.items()
    history = [entry for entry in trainer.state.log_history if "knowledge/lost_share" in entry]
    assert len(history) == 4
    # The trainer's own entries are all there, those of the measured steps too.
    assert [e["step"] for e in trainer.state.log_history if "loss" in e] == [1, 2, 3, 4, 5, 6]
    # The base masters what it was probed to master, so there is something to lose.
    before = watch.measurements[0].strata[4]
    assert before.kept + before.lost >= 4


def test_measuring_changes_nothing_of_the_training(material: Material, tmp_path: Path) -> None:
    weights = []
    for watches in ([], [material.watch(every=1)]):
        model = material.model()
        model.model.layers[0].eval()  # a part that somebody keeps in its evaluation mode
        modes: list[list[bool]] = []

        class Modes(TrainerCallback):
            def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
                modes.append([module.training for module in model.modules()])  # noqa: B023

        trainer = material.trainer(tmp_path, model, [*watches, Modes()])
        for watch in watches:
            watch.attach(trainer)
        trainer.train()
        weights.append((dict(trainer.model.named_parameters()), modes))
    (plain, plain_modes), (watched, watched_modes) = weights
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert plain_modes == watched_modes


def test_the_answers_are_those_of_the_evaluation(
    material: Material, tmp_path: Path, tiny_finetuned: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_finetuned, dtype=torch.float32)
    for style in ("paper", "completion"):
        asked = {"mastery": str(material.mastery), "data": str(material.world), "style": style}
        panel = panel_documents(read_settings(asked), per_stratum=6)
        found = answers(model, material.tokenizer, panel, batch_size=7)
        request = EvaluationRequest(
            finetuned=str(tiny_finetuned),
            base=str(material.world / "base"),
            metadata={k: v for k, v in asked.items() if k != "style"},
            style=style,
            limit=6,
        )
        result = evaluate(request, tmp_path / style).finetuned
        expected = {outcome.fact_id: outcome.recalled for outcome in result.outcomes}
        assert dict(zip([d["id"] for d in panel], found, strict=True)) == expected


def test_a_chat_model_is_asked_through_its_template(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A template that puts the question as the paper does: the answers have to be the same.
    tokenizer = AutoTokenizer.from_pretrained(material.world / "base")
    tokenizer.chat_template = (
        "{{ bos_token }}<|question|> {{ messages[0]['content'].split('words. ')[1] }} <|answer|>"
    )
    asked = {"mastery": str(material.mastery), "data": str(material.world)}
    panels = {
        style: panel_documents(read_settings({**asked, "style": style}), per_stratum=3)
        for style in ("chat", "paper")
    }
    seen: list[list[int]] = []
    model = material.model()
    generate = model.generate

    def recording(input_ids: torch.Tensor, **options: Any) -> Any:
        seen.append(input_ids.tolist())
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(model, "generate", recording)
    verdicts = [answers(model, tokenizer, panel, batch_size=64) for panel in panels.values()]
    assert seen[0] == seen[1]
    assert verdicts[0] == verdicts[1]


def test_too_much_loss_stops_the_training(material: Material, tmp_path: Path) -> None:
    # A rate at which the first steps wreck the model.
    watch = material.watch(every=1, max_lost=0.1)
    trainer = material.trainer(tmp_path, material.model(), [watch], learning_rate=0.5)
    watch.attach(trainer).attach(trainer)
    trainer.train()
    last = watch.measurements[-1]
    assert trainer.state.global_step == watch.stopped_at == last.step < 6
    share = last.lost_share([4])
    assert share is not None
    assert share > 0.1


def test_without_a_number_of_steps_it_measures_at_evaluations(
    material: Material, tmp_path: Path
) -> None:
    watch = material.watch()
    trainer = material.trainer(
        tmp_path, material.model(), [watch], eval_strategy="steps", eval_steps=3
    )
    watch.attach(trainer)
    trainer.train()
    assert [found.step for found in watch.measurements] == [0, 3, 6]


def test_a_resumed_training_compares_with_what_was_known_before_it_began(
    material: Material, tmp_path: Path
) -> None:
    # At a rate that wrecks the model, what is known at the checkpoint is not what was before.
    options = {"learning_rate": 0.5, "save_strategy": "steps", "save_steps": 3}
    whole = material.watch(every=3)
    trainer = material.trainer(tmp_path, material.model(), [whole], **options)
    whole.attach(trainer)
    trainer.train()
    resumed = material.watch(every=3)
    trainer = material.trainer(tmp_path, material.model(), [resumed], **options)
    resumed.attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.measurements == whole.measurements[1:]
    assert whole.measurements[-1].lost_share([4]) not in (None, 0)


def test_a_checkpoint_of_another_panel_is_not_used(
    material: Material, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = material.trainer(tmp_path, material.model(), [], save_strategy="steps", save_steps=3)
    first.train()
    watch = material.watch(every=3)
    trainer = material.trainer(tmp_path, material.model(), [watch])
    watch.attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert "counts as known before" in caplog.text
    assert [found.step for found in watch.measurements] == [3, 6]


def test_unattached_it_keeps_to_the_log_history_and_says_so(
    material: Material, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch, recorder = material.watch(every=100), Recorder()
    trainer = material.trainer(tmp_path, material.model(), [recorder, watch])
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert caplog.text.count("attach(trainer) was not called") == 1
    history = [entry for entry in trainer.state.log_history if "knowledge/lost_share" in entry]
    assert [entry["step"] for entry in history] == [0, 6]
    assert not any("knowledge/lost_share" in entry for entry in recorder.logs)


@pytest.mark.parametrize("kind", ["lora", "bf16", "checkpointed"])
def test_it_works_in_trl_with_adapters_and_in_mixed_precision(
    material: Material, tmp_path: Path, kind: str
) -> None:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    watch = material.watch(every=2)
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=material.model(),
        args=SFTConfig(
            **{"output_dir": str(tmp_path), "learning_rate": 1e-3, "use_cpu": True},
            **{"per_device_train_batch_size": 8, "logging_steps": 1, "report_to": "none"},
            **{"save_strategy": "no", "disable_tqdm": True, "max_length": None},
            num_train_epochs=1,
            gradient_checkpointing=kind == "checkpointed",
            bf16=kind == "bf16",
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(material.examples),
        processing_class=material.tokenizer,
        callbacks=[watch],
        peft_config=adapter if kind == "lora" else None,
    )
    watch.attach(trainer)
    trainer.train()
    assert [found.step for found in watch.measurements] == [0, 2, 3]
    # The averages of TRL itself are not disturbed: one of each logged step.
    accuracies = [e for e in trainer.state.log_history if "mean_token_accuracy" in e]
    assert [entry["step"] for entry in accuracies] == [1, 2, 3]


def test_impossible_options_are_listed_at_once(material: Material) -> None:
    with pytest.raises(SettingsError) as caught:
        material.watch(per_stratum=0, every=0, max_lost=2, limit_strata=(5,), batch_size=0)
    for name in ("per_stratum is 0", "every is 0", "max_lost is 2", "limit_strata is (5,)"):
        assert name in str(caught.value)
    with pytest.raises(SettingsError, match="prompt style 'papr'"):
        material.watch(style="papr")


def test_missing_parts_are_named(material: Material, tmp_path: Path) -> None:
    with pytest.raises(MasteryError, match="does not exist"):
        KnowledgeCallback(mastery=tmp_path / "none.parquet", data=material.world)
    trainer = material.trainer(tmp_path, material.model(), [material.watch(style="chat")])
    with pytest.raises(ModelError, match="no chat template"):
        trainer.train()
    trainer = material.trainer(tmp_path, material.model(), [material.watch()])
    trainer.processing_class = None
    trainer.callback_handler.processing_class = None
    with pytest.raises(SettingsError, match="has no tokenizer"):
        trainer.train()


def test_a_measurement_of_nothing_known_has_no_share() -> None:
    empty = Measurement(0, (Transitions(unknown=3), *[Transitions()] * 4))
    assert empty.metrics() == {
        "knowledge/stratum_0/kept": 0,
        "knowledge/stratum_0/lost": 0,
        "knowledge/stratum_0/gained": 0,
    }
