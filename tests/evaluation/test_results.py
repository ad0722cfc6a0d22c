"""Shares, intervals and means of strata, against published and hand-made values."""

from __future__ import annotations

import math

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome, Share, mean_of_strata, outcomes_of, scores


def outcome(fact_id: str, stratum: int, right: bool, domain: str = "id") -> Outcome:
    correct = dict.fromkeys(("alias_acc", "alias_word_acc", "exact_match"), right)
    return Outcome(
        fact_id,
        "P17",
        domain,
        stratum,
        "prompt",
        "output",
        correct,
        float(right),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("n_correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3 (Wilson).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_wilsons(n_correct: int, n: int, low: float, high: float) -> None:
    assert Share(n_correct, n).interval() == pytest.approx((low, high), abs=5e-5)


def test_a_stratum_of_one_fact_has_an_interval() -> None:
    # Wilson's formula for n = 1, p = 1: (1 + z^2/2 +- z^2/2) / (1 + z^2), z = 1.959964.
    assert Share(1, 1).interval() == pytest.approx((1 / (1 + 1.959964**2), 1.0))


def test_nothing_counted_is_missing_and_not_zero() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval() is None
    assert Share(0, 0).as_json() == {
        "n_correct": 0,
        "n": 0,
        "value": None,
        "low": None,
        "high": None,
    }


def test_mean_is_over_strata_and_not_over_facts() -> None:
    mean = mean_of_strata([Share(0, 90), Share(10, 10), Share(5, 10), Share(0, 0), Share(0, 0)])
    assert mean.value == pytest.approx((0 + 1 + 0.5) / 3)
    assert mean.strata == (0, 1, 2)


def test_interval_of_the_mean_is_zou_and_donners() -> None:
    # L = m - sqrt(sum (p_i - l_i)^2) / k by hand for two strata.
    one, two = Share(3, 10), Share(8, 10)
    (l1, u1), (l2, u2) = one.interval() or (0, 0), two.interval() or (0, 0)
    mean = mean_of_strata([one, two])
    assert mean.low == pytest.approx(0.55 - math.hypot(0.3 - l1, 0.8 - l2) / 2)
    assert mean.high == pytest.approx(0.55 + math.hypot(u1 - 0.3, u2 - 0.8) / 2)


def test_interval_of_one_stratum_alone_is_its_own() -> None:
    mean = mean_of_strata([Share(0, 0), Share(3, 10), Share(0, 0)])
    assert (mean.low, mean.high) == pytest.approx(Share(3, 10).interval())


def test_mean_of_nothing_is_missing() -> None:
    assert mean_of_strata([Share(0, 0)] * 5).value is None


def test_scores_of_a_domain_without_facts_are_missing() -> None:
    found = scores([outcome("a", 1, True), outcome("b", 1, False)])
    assert found["id"]["alias_acc"]["strata"][1]["n_correct"] == 1
    assert found["id"]["alias_acc"]["mean"]["value"] == 0.5
    assert found["id"]["token_f1"]["strata"][1] == {"n": 2, "value": 0.5}
    assert found["ood"]["alias_acc"]["mean"]["value"] is None
    assert found["ood"]["token_f1"]["mean"]["value"] is None


def test_results_without_samples_say_what_to_do() -> None:
    with pytest.raises(SettingsError, match="--log_samples"):
        outcomes_of({"results": {}})
