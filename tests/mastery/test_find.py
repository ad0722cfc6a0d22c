"""Finding a table: the order of the sources, weights before names, and what errors say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from sftknow_eval.artifacts import cache_dir
from sftknow_eval.errors import MasteryError, ModelError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.find import cached_tables, find_mastery, register
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.models import weight_fingerprint


def table_of(base: str, fingerprint: str, n_facts: int = 2, seed: int = 0) -> MasteryTable:
    facts = [
        Fact(f"P19-test-{i:04d}", "P19", "id", "test", "X", f"Where was X{i}?", "Rome", ("Rome",))
        for i in range(n_facts)
    ]
    meta = TableMeta(
        base=base,
        revision=None,
        fingerprint=fingerprint,
        data="small",
        facts_digest=str(n_facts),
        templates_digest="",
        n_templates=3,
        samples_per_template=5,
        temperature=0.7,
        max_tokens=32,
        seed=seed,
    )
    return MasteryTable.build(facts, pack_verdicts(np.zeros((n_facts, 3, 5), bool)), meta)


def registered(folder: Path, table: MasteryTable) -> Path:
    table.write(folder / "mastery.parquet")
    return register(folder)


def test_explicit_comes_before_the_environment_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_of("explicit", "a" * 64).write(tmp_path / "explicit.parquet")
    table_of("environment", "b" * 64).write(tmp_path / "environment.parquet")
    registered(tmp_path / "c", table_of("a/base", "c" * 64))
    assert find_mastery(base="a/base").meta.base == "a/base"
    monkeypatch.setenv("SFTKNOW_MASTERY", str(tmp_path / "environment.parquet"))
    assert find_mastery(base="a/base").meta.base == "environment"
    found = find_mastery(explicit=tmp_path / "explicit.parquet", base="a/base")
    assert found.meta.base == "explicit"


def test_a_base_is_found_by_its_weights_wherever_they_lie(
    tmp_path: Path, random_model: Path
) -> None:
    fingerprint = weight_fingerprint(random_model)
    registered(tmp_path / "t", table_of("some/hub-name", fingerprint))
    copy = shutil.copytree(random_model, tmp_path / "moved")
    assert find_mastery(base=str(copy)).meta.fingerprint == fingerprint
    assert find_mastery(model=str(copy)).meta.fingerprint == fingerprint
    assert find_mastery(base=fingerprint).meta.fingerprint == fingerprint


def test_a_folder_of_the_same_name_with_other_weights_is_not_taken(
    tmp_path: Path, random_model: Path
) -> None:
    registered(tmp_path / "t", table_of(str(random_model), "d" * 64))
    with pytest.raises(MasteryError, match=f"sftknow probe {random_model}"):
        find_mastery(base=str(random_model))


def test_the_base_comes_before_the_model(tmp_path: Path) -> None:
    registered(tmp_path / "a", table_of("the/base", "a" * 64))
    registered(tmp_path / "b", table_of("the/model", "b" * 64))
    assert find_mastery(base="the/base", model="the/model").meta.base == "the/base"
    assert find_mastery(base="not/there", model="the/model").meta.base == "the/model"


def test_of_several_tables_the_one_with_most_facts_is_taken(tmp_path: Path) -> None:
    registered(tmp_path / "many", table_of("a/base", "a" * 64, n_facts=9))
    registered(tmp_path / "few", table_of("a/base", "a" * 64, n_facts=3))
    assert len(find_mastery(base="a/base")) == 9


def test_registering_again_adds_nothing(tmp_path: Path) -> None:
    first = registered(tmp_path / "t", table_of("a/base", "a" * 64))
    assert registered(tmp_path / "t", table_of("a/base", "a" * 64)) == first
    registered(tmp_path / "u", table_of("a/base", "a" * 64, seed=1))
    assert len(cached_tables()) == 2


def test_a_damaged_table_in_the_cache_is_passed_over(tmp_path: Path) -> None:
    registered(tmp_path / "t", table_of("a/base", "a" * 64))
    (cache_dir() / "mastery" / "damaged.parquet").write_text("not a table")
    assert find_mastery(model="a/base").meta.base == "a/base"


def test_a_named_table_of_another_base_is_refused(tmp_path: Path, random_model: Path) -> None:
    table_of("a/base", "a" * 64).write(tmp_path / "mastery.parquet")
    with pytest.raises(MasteryError, match="belongs to 'a/base'"):
        find_mastery(explicit=tmp_path, base=str(random_model))


def test_nothing_found_says_which_command_makes_it(tmp_path: Path) -> None:
    registered(tmp_path / "t", table_of("a/base", "a" * 64))
    with pytest.raises(MasteryError) as caught:
        find_mastery(base="meta-llama/Meta-Llama-3-8B")
    for words in ("sftknow probe meta-llama/Meta-Llama-3-8B --out", "SFTKNOW_MASTERY", "a/base"):
        assert words in str(caught.value)
    with pytest.raises(MasteryError, match="No base model is named"):
        find_mastery()


def test_a_base_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        find_mastery(base=str(tmp_path))


def test_only_the_seed_differs_between_two_records() -> None:
    # Guards the other tests: tables made here differ in what they are meant to differ in.
    one, two = table_of("a", "b").meta, table_of("a", "b", seed=1).meta
    assert dataclasses.replace(one, seed=1) == two
