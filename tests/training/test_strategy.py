"""Strategies: what a file may say, what is wrong in one, and that each really trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from sftknow_eval.config_faults import read_config
from sftknow_eval.errors import SettingsError, TooFewFacts
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.record import read_record
from sftknow_eval.training.run import Finetuned, TrainRequest, train_strategy
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.strategy import (
    Strategy,
    Training,
    known_strategies,
    load_strategy,
    strategies_path,
)

TRAINED = {
    *("sft_divided", "sft_mixed", "lora", "low_lr", "replay", "dft", "oft", "osf"),
    "format_only",
}
# From the list of strategies that the project set out to have.
OTHERS = {
    **dict.fromkeys(("restoration", "random_restoration", "bottom_restoration"), "restoration"),
    **{"wise_ft": "interpolation", "instruct": "published", "base": "base"},
    "base_again": "base_again",
}


def _train(name: str, world: Path, table: Path, out: Path, **options: object) -> Finetuned:
    strategy = load_strategy(name)
    rate = 5e-3 if strategy.adapter else 1e-3
    asked = {"stratum": 0, "n": 16} | options
    request = TrainRequest(
        base=str(world / "base"), out=out, training={"learning_rate": rate}, **asked
    )
    return train_strategy(strategy, request, open_dataset(world), MasteryTable.read(table))


def test_the_strategies_are_those_of_the_paper_and_those_beside_it() -> None:
    kinds = {name: load_strategy(name).kind for name in known_strategies()}
    assert kinds == {**dict.fromkeys(TRAINED, "training"), **OTHERS}


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_each_trains_the_tiny_world(
    name: str, tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    own = {"stratum": None} if name in ("sft_mixed", "format_only") else {}
    done = _train(name, tiny_world, tiny_table, tmp_path / "ft", **own)
    record = read_record(done.folder)
    assert record == done.record
    assert record is not None
    assert (record.strategy, record.strategy_digest) == (name, load_strategy(name).digest)
    assert sum(record.drawn.values()) == record.n == len(record.fact_ids)
    assert record.steps == -(-record.n // 8)
    adapter = load_strategy(name).adapter
    folder = done.folder if adapter is None or adapter.save == "merged" else None
    assert (record.trained_parameters < record.total_parameters) == (adapter is not None)
    assert not [p for p in tmp_path.iterdir() if p.name not in ("ft", "cache")]
    if folder:
        model = AutoModelForCausalLM.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(tiny_world / "base")
        moved = [
            not torch.equal(a, b)
            for a, b in zip(model.parameters(), base.parameters(), strict=True)
        ]
        assert any(moved)
    assert _train(name, tiny_world, tiny_table, tmp_path / "ft", **own).reused


@pytest.mark.parametrize("name", ["oft", "osf"])
def test_a_merged_adapter_answers_as_the_adapter_did(
    name: str, tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    # Expected: the logits of the adapter itself, saved by a strategy that does not merge.
    text = (strategies_path() / f"{name}.yaml").read_text()
    own = tmp_path / f"{name}.yaml"
    own.write_text(text.replace("save: merged", "save: adapter"))
    merged = _train(name, tiny_world, tiny_table, tmp_path / "merged")
    apart = _train(str(own), tiny_world, tiny_table, tmp_path / "apart")
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(tiny_world / "base")
    adapted = PeftModel.from_pretrained(base, apart.folder).eval()
    whole = AutoModelForCausalLM.from_pretrained(merged.folder)
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, adapted(ids).logits, atol=2e-3, rtol=1e-3)


def test_an_adapter_names_its_base_and_holds_its_tokenizer(
    tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    done = _train("lora", tiny_world, tiny_table, tmp_path / "ft")
    settings = json.loads((done.folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str((tiny_world / "base").resolve())
    assert settings["r"] == 8
    assert (done.folder / "tokenizer.json").is_file()
    assert not (done.folder / "README.md").exists()
    assert done.record.adapter == load_strategy("lora").adapter.model_dump(mode="json")


def test_replay_mixes_mastered_facts_in(tiny_world: Path, tiny_table: Path, tmp_path: Path) -> None:
    # Expected: 16 facts and a share of 0.2 make 4 of 20.
    record = _train("replay", tiny_world, tiny_table, tmp_path / "ft").record
    strata = _strata(tiny_world, tiny_table)
    assert record.drawn == {"stratum": 16, "replayed": 4}
    assert [strata[name] for name in record.fact_ids] == [0] * 16 + [4] * 4


def test_format_only_teaches_mastered_facts_about_untested_subjects(
    tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    record = _train("format_only", tiny_world, tiny_table, tmp_path / "ft", stratum=None).record
    strata, dataset = _strata(tiny_world, tiny_table), open_dataset(tiny_world)
    subjects = {fact.id: fact.subject for fact in dataset.facts("train", "id")}
    tested = {fact.subject for fact in dataset.probe_facts(splits=("dev", "test"))}
    assert {strata[name] for name in record.fact_ids} == {4}
    assert not tested & {subjects[name] for name in record.fact_ids}


def test_format_only_leaves_out_subjects_that_are_tested(
    small_data: Path, random_model: Path, hand_table: MasteryTable, tmp_path: Path
) -> None:
    # In the small data, every subject is tested: nothing is left to learn the form on.
    request = TrainRequest(base=str(random_model), out=tmp_path / "ft", stratum=2, n=1)
    with pytest.raises(TooFewFacts, match="there are 0 in-domain train facts"):
        train_strategy(load_strategy("format_only"), request, open_dataset(small_data), hand_table)


def test_low_lr_scales_whatever_rate_it_is_given(
    tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    record = _train("low_lr", tiny_world, tiny_table, tmp_path / "ft").record
    assert record.hyperparameters["learning_rate"] == pytest.approx(1e-4)
    assert load_strategy("low_lr").train_settings().learning_rate == pytest.approx(1e-6)


def test_a_strategy_that_trains_nothing_says_how_it_is_had(
    tiny_world: Path, tiny_table: Path, tmp_path: Path
) -> None:
    for name, verb in (("wise_ft", "sftknow interpolate"), ("restoration", "sftknow restore")):
        with pytest.raises(SettingsError, match=verb):
            _train(name, tiny_world, tiny_table, tmp_path / "ft")


FAULTY = """\
name: faulty
about: Everything in it is wrong.
facts: {draw: replay, stratum: 7, options: {shre: 0.5}}
training: {learning_rat: 1e-3, dtype: floot32, epochs: 0}
trainer:
  optm: adamw_torch
  loss_type: dtf
  learning_rate: 1
adapter: {type: LORE, save: apart}
"""


def test_all_faults_of_a_strategy_are_listed_with_lines_and_near_names(tmp_path: Path) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(FAULTY)
    with pytest.raises(SettingsError) as caught:
        load_strategy(path)
    message = str(caught.value)
    assert message.startswith(f"{path} has 10 faults:")
    for text in (
        "line 3: facts.stratum: is 7",
        "line 3: facts.options.shre: the draw 'replay' has no such option "
        "(it has share, replayed_stratum); did you mean 'share'?",
        "line 4: training.learning_rat: is no setting here",
        "did you mean 'learning_rate'?",
        "line 4: training.dtype: is 'floot32'; one of float32, bfloat16 was expected; did you mean",
        "line 4: training.epochs: is 0",
        "line 6: trainer.optm: is no setting of TRL's SFTConfig; did you mean 'optim'?",
        "line 7: trainer.loss_type: is 'dtf'",
        "line 8: trainer.learning_rate: is not set here; it follows from training",
        "line 9: adapter.type: PEFT knows no method 'LORE'; did you mean",
        "line 9: adapter.save: is 'apart'",
    ):
        assert text in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: restoration", "kind restoration needs 'restoration'; kind restoration needs 'der"),
        ("kind: base\nadapter: {type: LORA}", "kind base does not go with 'adapter'"),
        ("derived_from: sft_divided", "kind training does not go with 'derived_from'"),
        ("adapter: {type: LORA, settings: {rr: 3}}", "is no setting of PEFT's LoraConfig; did you"),
        ("facts: {draw: 'no_such_module:draw'}", "cannot be imported"),
    ],
)
def test_what_does_not_fit_together_is_a_fault(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: odd\nabout: x\n{text}\n")
    with pytest.raises(SettingsError, match=expected):
        load_strategy(path)


def test_unknown_names_and_other_names_than_the_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no strategy 'loar'. Did you mean 'lora'\?"):
        load_strategy("loar")
    path = tmp_path / "mine.yaml"
    path.write_text("name: yours\nabout: x\n")
    with pytest.raises(SettingsError, match="calls itself 'yours', the file 'mine'"):
        load_strategy(path)


def test_the_digest_is_of_what_is_done_and_not_of_words() -> None:
    value = yaml.safe_load((strategies_path() / "replay.yaml").read_text())
    one = Strategy.model_validate(value)
    assert Strategy.model_validate(value | {"about": "other words"}).digest == one.digest
    facts = {"draw": "replay", "options": {"share": 0.3}}
    assert Strategy.model_validate(value | {"facts": facts}).digest != one.digest


def test_a_strategy_may_set_all_that_the_optimisation_has() -> None:
    names = set(TrainSettings.__dataclass_fields__)
    assert set(Training.model_fields) == names | {"learning_rate_scale"}


def test_a_strategy_of_ones_own_brings_its_own_draw(
    tiny_world: Path, tiny_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The example of docs/strategies.md, as it stands there.
    page = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
    blocks = page.split("```")
    code = next(b for b in blocks if b.startswith("python")).removeprefix("python\n")
    text = next(b for b in blocks if b.startswith("yaml")).removeprefix("yaml\n")
    (tmp_path / "distinct.py").write_text(code)
    path = tmp_path / "distinct_answers.yaml"
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert read_config(path, Strategy).name == "distinct_answers"
    record = _train(str(path), tiny_world, tiny_table, tmp_path / "ft", n=8).record
    facts = {fact.id: fact for fact in open_dataset(tiny_world).facts("train", "id")}
    answers = [facts[name].answer for name in record.fact_ids]
    assert len(set(answers)) == len(answers) == 8


def _strata(world: Path, table: Path) -> dict[str, int]:
    facts = open_dataset(world).facts("train", "id")
    return MasteryTable.read(table).strata_of(facts)
