"""`sftknow eval` and `sftknow compare` on a real fine-tune of the tiny world, on transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_calls import Sftknow

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.models import weight_fingerprint


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


@pytest.fixture(scope="module")
def mastery(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the tiny base, with drawn counts."""
    dataset = open_dataset(tiny_world)
    facts = dataset.probe_facts()
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    rng = np.random.default_rng(0)
    verdicts = rng.random((len(facts), templates.count, 2)) < rng.random((len(facts), 1, 1))
    verdicts[::5] = False
    base = tiny_world / "base"
    meta = TableMeta(
        base=str(base),
        revision=None,
        fingerprint=weight_fingerprint(base),
        data=dataset.name,
        facts_digest="",
        templates_digest=templates.digest,
        n_templates=templates.count,
        samples_per_template=2,
        temperature=0.7,
        max_tokens=32,
        seed=0,
    )
    path = tmp_path_factory.mktemp("table") / "mastery.parquet"
    MasteryTable.build(facts, pack_verdicts(verdicts), meta).write(path)
    return path


@pytest.fixture(scope="module")
def evaluated(tiny_world: Path, mastery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the base evaluated as if it were a fine-tune: it exists and needs no training."""
    out = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTKNOW_CACHE", str(out / "cache"))
        patch.setattr("sys.argv", ["sftknow", *eval_words(tiny_world, mastery, out / "one")])
        from sftknow_eval.cli.app import main

        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return out


def eval_words(world: Path, mastery: Path, out: Path) -> list[str]:
    named = ("--data", world, "--mastery", mastery, "--model-args", "dtype=float32")
    return [str(word) for word in ("eval", world / "base", *named, "--out", out)]


def test_results_state_models_style_scores_and_transitions(
    evaluated: Path, tiny_world: Path
) -> None:
    found = json.loads((evaluated / "one" / "results.json").read_text())
    assert found["format"] == "sftknow-results/1"
    assert found["task"]["split"] == "test"
    assert found["finetuned"]["style"] == "plain"
    assert found["finetuned"]["style_from"] == "no training record, no chat template"
    assert found["base"]["style"] == "completion"
    assert found["base"]["base_from"] == "mastery table"
    assert found["base"]["fingerprint"] == weight_fingerprint(tiny_world / "base")
    for domain, n in (("id", 80), ("ood", 40)):
        everything = found["transitions"][domain]["all"]
        assert everything["n"] == n
        strata = found["scores"]["base"][domain]["alias_acc"]["strata"]
        assert sum(s["n_correct"] for s in strata) == everything["kept"] + everything["lost"]


def test_facts_hold_prompts_outputs_and_verdicts_of_both(evaluated: Path) -> None:
    table = pq.read_table(evaluated / "one" / "facts.parquet").to_pylist()
    assert len(table) == 120
    row = table[0]
    assert row["finetuned_prompt"].startswith("Question: ")
    assert not row["base_prompt"].startswith("Question: ")
    assert {"base_output", "finetuned_output", "transition", "stratum"} <= row.keys()
    known = [r for r in table if r["base_alias_acc"]]
    assert {r["transition"] for r in known} <= {"kept", "lost"}


def test_base_that_learned_the_facts_knows_some_of_them(evaluated: Path) -> None:
    table = pq.read_table(evaluated / "one" / "facts.parquet").to_pylist()
    assert 10 < sum(row["base_alias_acc"] for row in table) < 110


def test_a_second_run_loads_no_model(
    evaluated: Path,
    tiny_world: Path,
    mastery: Path,
    sftknow: Sftknow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SFTKNOW_CACHE", str(evaluated / "cache"))
    monkeypatch.setattr("sftknow_eval.evaluation.run.start_engine", lambda *_: pytest.fail("start"))
    done = sftknow(*eval_words(tiny_world, mastery, evaluated / "two"))
    assert done.code == 0
    for heading in ("In-domain", "Out-of-domain", "kept", "lost", "gained", "mean"):
        assert heading in done.out
    assert "prompt style 'plain'" in done.out
    one, two = (evaluated / name / "results.json" for name in ("one", "two"))
    assert one.read_text() == two.read_text()
    agreed = sftknow("compare", evaluated / "one", evaluated / "two")
    assert "Verdicts agree on 120 of 120 facts" in agreed.out
    assert "two against base, in-domain" in agreed.out
    listed = sftknow("compare", evaluated / "one", evaluated / "two", "--json")
    found = json.loads(listed.out)
    assert found["differing"] == []
    against = [(pair["run"], pair["against"]) for pair in found["comparison"]["pairs"]]
    assert against == [("one", "base"), ("two", "base"), ("two", "one")]
    assert found["comparison"]["pairs"][2]["domains"]["id"]["mean"]["difference"]["value"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--style", "haiku"), "'haiku' is unknown"),
        (("--split", "validation"), "split is 'validation'"),
        (("--relations", "P99"), "Unknown relation P99"),
        (("--backend", "tensorflow"), "Unknown backend 'tensorflow'"),
        (("--mastery", "/nowhere/mastery.parquet"), "/nowhere/mastery.parquet does not exist"),
        (("--base", "/nowhere/base"), "/nowhere/base does not exist"),
        (("--num-fewshot", "100000"), "100000 shots are asked for"),
        (("--num-fewshot", "-1"), "num-fewshot is -1"),
        (("--limit", "0"), "limit is 0"),
        (("--batch-size", "0"), "batch-size is '0'"),
        (("--style", "chat"), "has no chat template"),
        (("--out", "/dev/null"), "cannot be written into /dev/null"),
    ],
)
def test_faults_are_told_before_a_model_is_loaded(
    tiny_world: Path,
    mastery: Path,
    tmp_path: Path,
    sftknow: Sftknow,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("sftknow_eval.evaluation.run.start_engine", lambda *_: pytest.fail("start"))
    done = sftknow(*eval_words(tiny_world, mastery, tmp_path / "out"), *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_loaded_is_an_error_with_the_engines_words(
    tiny_world: Path, mastery: Path, tmp_path: Path, sftknow: Sftknow
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (tiny_world / "base").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    named = ("--data", tiny_world, "--mastery", mastery, "--style", "plain")
    done = sftknow("eval", broken, *named, "--base", tiny_world / "base", "--out", tmp_path / "out")
    assert done.code == 2
    assert "could not be started" in done.err
    assert "unheard-of" in done.err
