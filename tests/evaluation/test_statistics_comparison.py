"""Runs compared fact by fact: counts by hand, coverage and size of tests by simulation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from statistics_cases import outcomes

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome, mean_of_strata, shares_by_stratum
from sftknow_eval.evaluation.statistics import Panel, compare_runs
from sftknow_eval.evaluation.statistics.intervals import bootstrap_estimate, paired_estimate
from sftknow_eval.evaluation.statistics.paired import mean_p
from sftknow_eval.evaluation.statistics.resampling import bootstrap_sums
from sftknow_eval.evaluation.statistics.significance import mcnemar_p

# Stratum 0: lost 1, gained 2 of 4. Stratum 2: kept 2, lost 2 of 4.
STRATA = [0, 0, 0, 0, 2, 2, 2, 2]
BASE = outcomes([1, 0, 0, 0, 1, 1, 1, 1], STRATA)
TUNED = outcomes([0, 1, 1, 0, 1, 1, 0, 0], STRATA)


def test_kept_lost_and_gained_by_hand() -> None:
    found = compare_runs(BASE, {"sft": TUNED}, draws=200).pair("sft").domains["id"]
    zero, two = found.strata[0].counts, found.strata[2].counts
    assert (zero.kept, zero.lost, zero.gained, zero.unknown) == (0, 1, 2, 1)
    assert (two.kept, two.lost, two.gained, two.unknown) == (2, 2, 0, 0)
    assert found.strata[0].difference.value == pytest.approx(1 / 4)
    assert found.strata[2].difference.value == pytest.approx(-2 / 4)
    assert found.mean.difference.value == pytest.approx((1 / 4 - 2 / 4) / 2)
    assert found.pooled.difference.value == pytest.approx(-1 / 8)
    assert found.pooled.lost_of_known is not None
    assert found.pooled.lost_of_known.value == pytest.approx(3 / 5)
    # McNemar on 1 lost, 2 gained: 2 x P(at most 1 of 3) = 1; on 2 lost: 2 x 1/4.
    assert found.strata[0].p == pytest.approx(1.0)
    assert found.strata[2].p == pytest.approx(0.5)


def test_an_empty_stratum_is_missing_and_not_zero() -> None:
    empty = compare_runs(BASE, {"sft": TUNED}, draws=200).pair("sft").domains["id"].strata[1]
    assert empty.counts.n == 0
    assert empty.difference.value is None
    assert empty.accuracy.value is None
    assert empty.p is None
    assert empty.least_detectable is None


def test_domains_are_kept_apart() -> None:
    other = outcomes([1, 1], [3, 4], domain="ood")
    found = compare_runs([*BASE, *other], {"sft": [*TUNED, *other]}, draws=200)
    pair = found.pair("sft")
    assert pair.domains["id"].pooled.counts.n == 8
    assert pair.domains["ood"].pooled.counts.kept == 2
    assert found.record["facts"] == {"id": 8, "ood": 2}
    assert "ood" not in compare_runs(BASE, {"sft": TUNED}, draws=200).pair("sft").domains


def test_small_strata_have_the_intervals_of_sftknow_eval() -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 5, 600)
    base = outcomes(rng.random(600) < 0.5, strata)
    found = compare_runs(base, {"same": base}, draws=200).pair("same").domains["id"]
    shares = shares_by_stratum(base, "id")
    for cell, share in zip(found.strata, shares, strict=True):
        assert (cell.accuracy.low, cell.accuracy.high) == share.interval()
    mean = mean_of_strata(shares)
    assert found.mean.accuracy.method == "zou-donner"
    assert (found.mean.accuracy.low, found.mean.accuracy.high) == pytest.approx(
        (mean.low, mean.high)
    )


def test_a_run_is_also_set_against_plain_fine_tuning_and_the_form_only() -> None:
    runs = {"sft": TUNED, "form": BASE, "lora": TUNED}
    found = compare_runs(BASE, runs, reference="sft", format_only="form", draws=200)
    assert [(pair.run, pair.against, pair.role) for pair in found.pairs] == [
        *((name, "base", "base") for name in runs),
        *(("form", "sft", "reference"), ("lora", "sft", "reference")),
        *(("sft", "form", "format_only"), ("lora", "form", "format_only")),
    ]
    # Form and base are the same here, so are lost and gained.
    assert found.pair("lora", "form").domains["id"].pooled.counts == (
        found.pair("lora").domains["id"].pooled.counts
    )
    assert found.pair("lora", "sft").domains["id"].pooled.counts.lost == 0
    with pytest.raises(KeyError):
        found.pair("base", "lora")


def test_a_run_may_stand_by_without_being_compared_itself() -> None:
    found = compare_runs(BASE, {"sft": TUNED}, format_only="form", others={"form": BASE}, draws=200)
    assert [(pair.run, pair.against) for pair in found.pairs] == [("sft", "base"), ("sft", "form")]
    assert found.record["runs"] == ["sft"]


def test_families_are_adjusted_by_other_domain_and_level() -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 5, 500)
    base = outcomes(rng.random(500) < 0.5, strata)
    runs = {f"run {i}": outcomes(rng.random(500) < 0.45, strata) for i in range(3)}
    found = compare_runs(base, runs, draws=400)
    assert [(f.level, f.tests) for f in found.families] == [("strata", 15), ("all", 3), ("mean", 3)]
    cells = [found.pair(name).domains["id"].pooled for name in runs]
    ordered = sorted(cells, key=lambda cell: cell.p or 0)
    # Holm by hand: times 3, 2, 1, never falling, at most 1.
    expected = np.minimum(
        np.maximum.accumulate(
            [(cell.p or 0) * k for cell, k in zip(ordered, (3, 2, 1), strict=True)]
        ),
        1,
    )
    assert [cell.p_holm for cell in ordered] == pytest.approx(list(expected))


def test_numbers_of_a_pair_do_not_depend_on_the_other_runs() -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 5, 400)
    base, one, other = (outcomes(rng.random(400) < 0.5, strata) for _ in range(3))
    alone = compare_runs(base, {"one": one}, draws=300, seed=3).pair("one").domains["id"]
    both = compare_runs(base, {"other": other, "one": one}, draws=300, seed=3).pair("one")
    assert alone.mean.by == both.domains["id"].mean.by
    assert alone.mean.p == both.domains["id"].mean.p
    again = compare_runs(base, {"one": one}, draws=300, seed=3).pair("one").domains["id"]
    assert again == alone


def test_the_order_of_facts_does_not_matter() -> None:
    found = compare_runs(BASE, {"sft": TUNED}, draws=200).as_json()
    assert compare_runs(BASE[::-1], {"sft": TUNED[2:] + TUNED[:2]}, draws=200).as_json() == found


def test_the_comparison_is_json_without_nan() -> None:
    text = json.dumps(compare_runs(BASE, {"sft": TUNED}, draws=200).as_json(), allow_nan=False)
    assert json.loads(text)["format"] == "sftknow-comparison/1"


def test_subjects_are_taken_from_the_mapping_where_one_is_given() -> None:
    bare = [dataclasses.replace(outcome, subject="") for outcome in BASE]
    with pytest.raises(SettingsError, match="subject of 8 of 8 facts is not known"):
        compare_runs(bare, {"sft": TUNED}, draws=200)
    one = dict.fromkeys((outcome.fact_id for outcome in BASE), "one subject")
    found = compare_runs(bare, {"sft": TUNED}, one, draws=200)
    assert found.record["clusters"]["subject"] == {"id": 1}
    assert found.pair("sft").domains["id"].mean.by["subject"].low is None


@pytest.mark.parametrize(
    ("runs", "named", "message"),
    [
        ({}, {}, "There is no run"),
        ({"base": TUNED}, {}, "called 'base'"),
        ({"sft": TUNED}, {"reference": "stf"}, "'stf' is not among the runs sft"),
        ({"sft": TUNED}, {"format_only": "form"}, "format_only 'form' is not among"),
        ({"sft": TUNED}, {"draws": 5}, "5 draws are too few"),
        ({"sft": TUNED[1:]}, {}, r"'sft' is not of the same facts.*id-test-00000"),
        ({"sft": outcomes([1] * 8, [1] * 8)}, {}, r"'sft' has 8 facts in other strata"),
    ],
)
def test_what_cannot_be_compared_is_named(
    runs: dict[str, list[Outcome]], named: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        compare_runs(BASE, runs, **{"draws": 200, **named})  # type: ignore[arg-type]


def test_a_fact_given_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="twice"):
        compare_runs([*BASE, BASE[0]], {"sft": TUNED}, draws=200)
    with pytest.raises(SettingsError, match="not of the same facts"):
        compare_runs(BASE, {"sft": [*TUNED[1:], TUNED[1]]}, draws=200)


def test_the_tests_keep_their_level_when_subjects_go_together() -> None:
    # 1,000 simulated comparisons without a true difference: 600 facts of 150 subjects, and whole
    # subjects are lost or gained. McNemar, which takes facts as independent, finds a difference far
    # too often; the sign flips of subjects do in about 5 of 100 (standard error 0.7).
    rng, replicates = np.random.default_rng(0), 1000
    of_subjects = of_facts = covered = 0
    for _ in range(replicates):
        subjects = np.unique(rng.integers(0, 150, 600), return_inverse=True)[1]
        strata, n = rng.integers(0, 5, 600), subjects.max() + 1
        changed, known = rng.random(n) < 0.4, rng.random(n) < 0.5
        base, tuned = known[subjects], (known ^ changed)[subjects]
        panel = Panel((), np.full(600, "id"), strata, {"subject": subjects, "relation": subjects})
        difference = tuned.astype(int) - base
        of_subjects += (mean_p(panel, difference, 400, rng) or 1) < 0.05
        lost, gained = int((difference < 0).sum()), int((difference > 0).sum())
        of_facts += (mcnemar_p(lost, gained) or 1) < 0.05
        draws = bootstrap_sums(difference[:, None], subjects, 400, rng)[:, 0] / 600
        covered += bootstrap_estimate(float(difference.mean()), draws, n).covers_zero
    assert of_subjects / replicates == pytest.approx(0.05, abs=0.02)
    assert of_facts / replicates > 0.2
    assert covered / replicates == pytest.approx(0.94, abs=0.02)


def test_the_interval_of_a_small_stratum_holds() -> None:
    # 1,000 simulated strata of 60 facts, 12% lost and 4% gained: Newcombe's interval covers the
    # true -0.08 in about 95 of 100 (standard error 0.7).
    rng = np.random.default_rng(0)
    found = [
        paired_estimate(int(k), int(lost), int(gained), int(u))
        for k, lost, gained, u in rng.multinomial(60, [0.5, 0.12, 0.04, 0.34], size=1000)
    ]
    covered = [e.low <= -0.08 <= e.high for e in found if e.low is not None and e.high is not None]
    assert np.mean(covered) == pytest.approx(0.955, abs=0.02)
