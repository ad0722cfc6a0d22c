"""Kept, lost, gained (protocol), and where two engines differ; outcomes written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sftknow_eval.errors import DataError, SettingsError
from sftknow_eval.evaluation.compare import compare_facts, transition, transitions
from sftknow_eval.evaluation.facts_file import read_outcomes, write_facts, write_outcomes
from sftknow_eval.evaluation.results import Outcome


def outcome(fact_id: str, right: bool, stratum: int = 0, output: str = "x") -> Outcome:
    correct = dict.fromkeys(("alias_acc", "alias_word_acc", "exact_match"), right)
    return Outcome(fact_id, "P17", "id", stratum, "prompt", output, correct, 0.0)


BASE = [outcome("a", True), outcome("b", True), outcome("c", False), outcome("d", False, 4)]
TUNED = [outcome("a", True), outcome("b", False), outcome("c", True), outcome("d", False, 4)]


def test_lost_is_what_the_base_knew_and_gained_the_reverse() -> None:
    assert [transition(b, f) for b in (True, False) for f in (True, False)] == [
        *("kept", "lost"),
        *("gained", "unknown"),
    ]


def test_transitions_are_counted_by_stratum_and_domain() -> None:
    found = transitions(BASE, TUNED)
    zero, four, everything = found["id"][0], found["id"][4], found["id"][5]
    assert (zero.kept, zero.lost, zero.gained, zero.unknown) == (1, 1, 1, 0)
    assert (four.n, four.unknown) == (1, 1)
    assert everything.n == 4
    assert everything.lost_of_known.as_json()["value"] == 0.5
    assert (everything.gained_of_unknown.n_correct, everything.gained_of_unknown.n) == (1, 2)
    assert found["ood"][5].lost_of_known.value is None


def test_agreement_lists_the_facts_that_differ() -> None:
    found = compare_facts(BASE, TUNED)
    assert (found.agreeing.n_correct, found.agreeing.n) == (2, 4)
    assert [a.fact_id for a, _ in found.differing] == ["b", "c"]


def test_same_verdict_with_another_text_is_agreement() -> None:
    found = compare_facts([outcome("a", True, output="Rome")], [outcome("a", True, output="Rome,")])
    assert found.agreeing.value == 1.0
    assert found.same_output.value == 0.0


def test_different_facts_are_not_compared() -> None:
    with pytest.raises(SettingsError, match=r"not of the same facts: 1 are in one only.*d"):
        compare_facts(BASE, TUNED[:3])


def test_outcomes_come_back_from_their_file(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "one.parquet", BASE)
    assert read_outcomes(tmp_path / "one.parquet") == BASE
    write_facts(tmp_path / "facts.parquet", TUNED, BASE)
    assert read_outcomes(tmp_path, "finetuned") == TUNED
    assert read_outcomes(tmp_path, "base") == BASE
    changed = pq.read_table(tmp_path / "facts.parquet")["transition"].to_pylist()
    assert changed == ["kept", "lost", "gained", "unknown"]


def test_without_a_base_there_are_no_columns_of_it(tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.parquet", TUNED)
    with pytest.raises(SettingsError, match="holds no outcomes of the base model"):
        read_outcomes(tmp_path, "base")


def test_what_is_no_outcome_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "facts.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"facts\.parquet is not readable"):
        read_outcomes(tmp_path, "base")


def test_the_subject_is_kept_and_may_be_absent_from_earlier_files(tmp_path: Path) -> None:
    about = [replace(entry, subject=f"subject of {entry.fact_id}") for entry in BASE]
    write_facts(tmp_path / "facts.parquet", about)
    assert read_outcomes(tmp_path, "finetuned") == about
    earlier = pq.read_table(tmp_path / "facts.parquet").drop_columns(["subject"])
    pq.write_table(earlier, tmp_path / "facts.parquet")
    assert read_outcomes(tmp_path, "finetuned") == BASE
