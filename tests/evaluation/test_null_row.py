"""The null row: the base against itself, by hand, in simulation, and of a real base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sftknow_eval.errors import MasteryError
from sftknow_eval.evaluation.base_again import base_again_outcomes, write_base_again
from sftknow_eval.evaluation.facts_file import read_outcomes
from sftknow_eval.evaluation.null_row import null_row, null_row_of, share_out
from sftknow_eval.evaluation.null_simulation import CELLS, SimulatedBase, null_coverage
from sftknow_eval.evaluation.statistics import compare_runs
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable


def test_samples_are_shared_out_without_overlap() -> None:
    # Each sample is marked by its own number, for every fact and template.
    numbered = np.broadcast_to(np.arange(10), (3, 2, 10))
    shared = share_out(numbered % 2 == 0, seed=5)
    order = np.random.default_rng(5).permutation(10)
    assert np.array_equal(shared.assigning[0, 0], order[:5] % 2 == 0)
    assert np.array_equal(shared.scoring[0, 0], order[5:] % 2 == 0)
    assert [part.shape for part in shared.quarters] == [(3, 2, 2), (3, 2, 2)]
    assert np.array_equal(shared.quarters[0], shared.scoring[:, :, :2])
    assert np.array_equal(shared.quarters[1], shared.scoring[:, :, 2:4])


def test_strata_are_by_the_assigning_half_alone() -> None:
    # Right in the half that assigns and nowhere else: stratum 4, and scored 0 twice.
    verdicts = np.zeros((6, 3, 8), bool)
    verdicts[:, :, np.random.default_rng(0).permutation(8)[:4]] = True
    row = null_row_of(verdicts, np.full(6, "id"), np.arange(6), seed=0)
    four = row.domains["id"].strata[4]
    assert (four.n, four.base, four.again, four.difference.value) == (6, 0.0, 0.0, 0.0)
    # The naive difference is all of it: from 1 to 0.
    assert four.naive.value == -1.0
    assert row.domains["id"].strata[0].n == 0
    assert row.domains["id"].strata[0].difference.value is None
    assert row.strata_kept.n_correct == 0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(MasteryError, match="3 samples of each template; the null row needs"):
        share_out(np.zeros((2, 3, 3), bool))


def test_the_null_row_covers_zero_and_naive_scoring_does_not() -> None:
    """100 reseeded simulations of a base that does not change, at the 95% level."""
    found = null_coverage(SimulatedBase(), replicates=100, seed=0)
    assert found.replicates == 100
    assert {name: found.null[name] for name in CELLS if found.null[name] < 90} == {}
    # Facts without a hit do better in new samples, always; the best mastered do worse, mostly.
    assert found.naive["stratum 0"] == 0
    assert found.naive["stratum 4"] <= 70
    # With fewer samples a template, as in a quick probe, more is regression to the mean.
    few = null_coverage(SimulatedBase(samples=4), replicates=100, seed=0)
    assert {name: few.null[name] for name in CELLS if few.null[name] < 90} == {}
    assert few.naive["stratum 0"] == 0
    assert few.naive["stratum 4"] <= 40


def test_the_null_row_of_a_table(tiny_world: Path, tiny_mastery: Path) -> None:
    table, dataset = MasteryTable.read(tiny_mastery), open_dataset(tiny_world)
    facts = dataset.probe_facts(splits=("test",))
    row = null_row(table, facts, seed=1)
    sizes = {d: sum(cell.n for cell in found.strata) for d, found in row.domains.items()}
    assert sizes == {d: sum(fact.domain == d for fact in facts) for d in ("id", "ood")}
    assert json.loads(json.dumps(row.as_json(), allow_nan=False)) == row.as_json()
    assert null_row(table, facts, seed=1) == row
    assert null_row(table, facts, seed=2) != row


def test_base_again_is_read_like_an_evaluation(
    tiny_world: Path, tiny_mastery: Path, tmp_path: Path
) -> None:
    table, dataset = MasteryTable.read(tiny_mastery), open_dataset(tiny_world)
    write_base_again(table, dataset, tmp_path, split="test")
    base, again = read_outcomes(tmp_path, "base"), read_outcomes(tmp_path, "finetuned")
    facts = dataset.probe_facts(splits=("test",))
    expected = base_again_outcomes(table, facts)
    assert sorted(o.fact_id for o in again) == sorted(fact.id for fact in facts)
    for found, made in zip((base, again), expected, strict=True):
        assert [o.recalled for o in found] == [o.recalled for o in made]
        assert {o.subject for o in found} == {fact.subject for fact in facts}
    summary = json.loads((tmp_path / "results.json").read_text())
    assert summary["format"] == "sftknow-results/1"
    # What the table does not know is missing, not 0.
    assert summary["scores"]["base"]["id"]["exact_match"]["mean"]["value"] is None
    assert summary["scores"]["base"]["id"]["token_f1"]["mean"]["value"] is None
    assert summary["scores"]["base"]["id"]["alias_acc"]["mean"]["value"] is not None
    null = json.loads((tmp_path / "null_row.json").read_text())
    assert null["domains"]["id"]["mean"]["n"] == sum(f.domain == "id" for f in facts)
    compared = compare_runs(base, {"base_again": again}, draws=500).pair("base_again")
    assert all(found.mean.difference.covers_zero for found in compared.domains.values())
