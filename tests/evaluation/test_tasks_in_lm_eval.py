"""The tasks through lm-eval's own evaluator, with a real transformers model on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.evaluation.run import TASK, task_manager
from sftknow_eval.evaluation.tasks import COMMON_SPECIAL_TOKENS, METRICS, judge, special_tokens
from sftknow_eval.mastery.dataset import open_dataset

LEAVES = [f"sftknow_cbqa_{domain}_{stratum}" for domain in ("id", "ood") for stratum in range(5)]


@pytest.fixture(scope="module")
def engine(tuned: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(tuned), device="cpu", dtype="float32", batch_size=32)


@pytest.fixture(scope="module")
def evaluated(engine: Any, tiny_world: Path, tiny_mastery: Path) -> Any:
    """A full run with defaults of lm-eval: samples, standard errors."""
    return run(engine, {"data": str(tiny_world), "mastery": str(tiny_mastery), "style": "paper"})


def run(engine: Any, metadata: dict[str, Any], **options: Any) -> Any:
    from lm_eval import simple_evaluate

    return simple_evaluate(
        model=engine, tasks=[TASK], task_manager=task_manager(metadata), **options
    )


def test_lm_eval_lists_ten_leaves_and_three_groups() -> None:
    manager = task_manager({})
    assert manager.all_subtasks == sorted(LEAVES)
    assert manager.all_groups == ["sftknow_cbqa", "sftknow_cbqa_id", "sftknow_cbqa_ood"]


def test_every_probed_fact_is_judged_once(evaluated: Any, tiny_world: Path) -> None:
    judged = [s["doc"]["id"] for leaf in LEAVES for s in evaluated["samples"][leaf]]
    facts = open_dataset(tiny_world).facts("test")
    assert sorted(judged) == sorted(fact.id for fact in facts)


def test_group_score_is_the_plain_mean_of_its_strata(evaluated: Any) -> None:
    for group in ("sftknow_cbqa_id", "sftknow_cbqa_ood"):
        for metric in METRICS:
            found = [evaluated["results"][f"{group}_{i}"][f"{metric},none"] for i in range(5)]
            assert evaluated["groups"][group][f"{metric},none"] == pytest.approx(sum(found) / 5)
    sizes = {evaluated["n-samples"][leaf]["effective"] for leaf in LEAVES}
    assert len(sizes) > 1, "with strata of one size a weighted mean would be the same"


def test_standard_error_of_a_group_is_that_of_an_unweighted_mean(evaluated: Any) -> None:
    # sqrt(sum se_i^2) / k; before lm-eval 0.4.13 it was that of the pooled facts.
    leaves = [
        evaluated["results"][f"sftknow_cbqa_id_{i}"]["alias_acc_stderr,none"] for i in range(5)
    ]
    expected = sum(error**2 for error in leaves) ** 0.5 / 5
    found = evaluated["groups"]["sftknow_cbqa_id"]["alias_acc_stderr,none"]
    assert found == pytest.approx(expected)


def test_top_group_lists_both_domains_and_has_no_score(evaluated: Any) -> None:
    from lm_eval.utils import make_table

    assert evaluated["group_subtasks"][TASK] == ["sftknow_cbqa_id", "sftknow_cbqa_ood"]
    assert not any("acc" in key for key in evaluated["results"][TASK])
    assert TASK not in evaluated["groups"]
    table = make_table(evaluated)
    assert "sftknow_cbqa_id_0 (paper, test)" in table
    assert "sftknow_cbqa_ood " in table


def test_the_style_and_the_table_are_part_of_the_result(evaluated: Any) -> None:
    record = evaluated["configs"]["sftknow_cbqa_id_0"]["metadata"]["sftknow"]
    assert record["style"] == "paper"
    assert record["split"] == "test"
    assert len(record["mastery_fingerprint"]) == 64
    json.dumps(evaluated["configs"]["sftknow_cbqa_id_0"]["metadata"])


def test_generation_is_greedy_and_short_and_prompts_are_the_papers(evaluated: Any) -> None:
    prompt, settings = evaluated["samples"]["sftknow_cbqa_id_0"][0]["arguments"][0]
    assert prompt.startswith("<|question|> ")
    assert prompt.endswith(" <|answer|>")
    assert (settings["max_gen_toks"], settings["do_sample"]) == (16, False)
    assert settings["until"] == []


def test_results_can_be_judged_again_from_the_samples(evaluated: Any) -> None:
    for leaf in LEAVES:
        for sample in evaluated["samples"][leaf]:
            again = judge(sample["doc"], [sample["resps"][0][0].strip()])
            assert again == {metric: sample[metric] for metric in METRICS}


def test_a_fine_tuned_model_answers_some_facts_and_not_all(evaluated: Any) -> None:
    right = [s["alias_acc"] for leaf in LEAVES for s in evaluated["samples"][leaf]]
    assert 0 < sum(right) < len(right)


def test_limit_takes_facts_of_several_relations(
    engine: Any, tiny_world: Path, tiny_mastery: Path
) -> None:
    found = run(engine, {"data": str(tiny_world), "mastery": str(tiny_mastery)}, limit=5)
    relations = {s["doc"]["relation"] for leaf in LEAVES[:5] for s in found["samples"][leaf]}
    assert len(relations) >= 3


def test_empty_and_single_strata_leave_the_others_right(
    engine: Any, tiny_world: Path, make_table
) -> None:
    facts = open_dataset(tiny_world).facts("test", domain="id")[:5]
    # 84 samples a fact: strata 0, 0, 0, 0 and 4; the strata between are empty.
    table = make_table(tiny_world, {f.id: 84 if f is facts[-1] else 0 for f in facts})
    found = run(engine, {"data": str(tiny_world), "mastery": str(table)})
    assert found["n-samples"]["sftknow_cbqa_id_0"]["effective"] == 4
    assert found["n-samples"]["sftknow_cbqa_id_4"]["effective"] == 1
    assert "alias_acc,none" not in found["results"]["sftknow_cbqa_id_2"]
    scores = [found["results"][f"sftknow_cbqa_id_{i}"]["alias_acc,none"] for i in (0, 4)]
    assert found["groups"]["sftknow_cbqa_id"]["alias_acc,none"] == pytest.approx(sum(scores) / 2)
    assert found["groups"]["sftknow_cbqa_id"]["alias_acc_stderr,none"] == "N/A"
    assert "alias_acc,none" not in found["results"]["sftknow_cbqa_ood"]


def test_shots_stand_before_the_question_the_same_for_all(
    engine: Any, tiny_world: Path, tiny_mastery: Path
) -> None:
    metadata = {"data": str(tiny_world), "mastery": str(tiny_mastery), "style": "plain"}
    found = run(engine, metadata, num_fewshot=2, limit=2)
    prompts = [s["arguments"][0][0] for leaf in LEAVES for s in found["samples"][leaf]]
    blocks = [prompt.split("\n\n") for prompt in prompts]
    assert {len(parts) for parts in blocks} == {3}
    assert len({tuple(parts[:2]) for parts in blocks}) == 1
    assert all(part.startswith("Question: ") for part in blocks[0])
    assert not blocks[0][0].endswith("Answer:")
    assert blocks[0][2].endswith("\nAnswer:")
    assert found["n-shot"]["sftknow_cbqa_id"] == 2


def test_chat_goes_through_the_models_template(
    engine: Any, tiny_world: Path, tiny_mastery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
    )
    monkeypatch.setattr(engine.tokenizer, "chat_template", template)
    metadata = {"data": str(tiny_world), "mastery": str(tiny_mastery), "style": "chat"}
    options = {"num_fewshot": 1, "limit": 1, "apply_chat_template": True}
    found = run(engine, metadata, fewshot_as_multiturn=True, **options)
    prompt = found["samples"]["sftknow_cbqa_id_0"][0]["arguments"][0][0]
    lines = prompt.splitlines()
    assert [line.split("]")[0] for line in lines] == ["[user", "[assistant", "[user", "[assistant"]
    assert lines[0].startswith("[user] Answer in a few words. ")


def test_predict_only_judges_nothing(engine: Any, tiny_world: Path, tiny_mastery: Path) -> None:
    metadata = {"data": str(tiny_world), "mastery": str(tiny_mastery)}
    found = run(engine, metadata, predict_only=True, limit=1)
    assert "alias_acc,none" not in found["results"]["sftknow_cbqa_id_0"]
    assert found["samples"]["sftknow_cbqa_id_0"][0]["resps"]


def test_special_tokens_are_those_that_transformers_leaves_out(tuned: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tuned)
    known = special_tokens(str(tuned))
    assert tokenizer.eos_token in known
    assert "<|question|>" not in known, "the markers are ordinary tokens and stay in the text"
    assert special_tokens(None) == COMMON_SPECIAL_TOKENS
    assert special_tokens("no/such-tokenizer") == COMMON_SPECIAL_TOKENS


def test_special_tokens_do_not_reach_the_judge(tiny_world: Path, tiny_mastery: Path) -> None:
    metadata = {"data": str(tiny_world), "mastery": str(tiny_mastery)}
    task = task_manager(metadata).load(["sftknow_cbqa_id_4"])["tasks"]["sftknow_cbqa_id_4"]
    document = task.eval_docs[0]
    found = task.process_results(document, [f" {document['answer']}<|eot_id|></s>"])
    assert found["exact_match"] == 1
