"""Closed forms hold what statsmodels gives; expected values come from `evaluation.statistics`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sftknow_eval.evaluation.statistics import difference_over_seeds, differences
from sftknow_eval.evaluation.statistics.seeds import over_seeds as reference
from sftknow_eval.leaderboard.measures import Mean, of_numbers, over_seeds, wilson
from sftknow_eval.leaderboard.ranking import pareto


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("facts", [40, 400, 2_500])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_means_over_seeds_are_those_of_the_statistics(seeds: int, facts: int, share: float) -> None:
    rng = np.random.default_rng([seeds, facts])
    right_SF = rng.random((seeds, facts)) < share
    stratum_F = rng.integers(0, 5, facts)
    groups = [stratum_F == s for s in range(5)]
    subject_F = np.unique(rng.integers(0, facts // 2, facts), return_inverse=True)[1]

    for chosen in (groups, groups[:1]):
        expected = reference(right_SF, chosen, subject_F)
        found = over_seeds(right_SF.astype(float), Mean.of(chosen, subject_F))

        assert found.value == pytest.approx(expected.mean)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.seeds == pytest.approx(expected.values)
        assert found.sd == (None if seeds == 1 else pytest.approx(expected.between_seeds))


def test_differences_of_a_mean_are_those_of_strategies() -> None:
    rng = np.random.default_rng(0)
    one_SF, other_SF = rng.random((3, 400)) < 0.6, rng.random((2, 400)) < 0.5
    stratum_F = rng.integers(0, 5, 400)
    groups = [stratum_F == s for s in (0, 2, 3)]
    subject_F = np.unique(rng.integers(0, 150, 400), return_inverse=True)[1]

    expected = difference_over_seeds(one_SF, other_SF, groups, subject_F)
    mean = Mean.of(groups, subject_F)
    found = differences(mean.side(one_SF), [mean.side(other_SF)])[0]

    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))


def test_wilson_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(7, 24).proportion_ci(method="wilson")

    assert wilson(7, 24) == pytest.approx((expected.low, expected.high))


# t(0.975, 2) = 4.302653; the values 1, 2, 3 have the standard deviation 1.
def test_numbers_have_a_t_interval_over_seeds() -> None:
    found = of_numbers([1.0, 2.0, 3.0])

    assert (found.value, found.sd) == (2.0, 1.0)
    assert found.high == pytest.approx(2 + 4.302653 / np.sqrt(3))
    assert found.low == 0.0  # a share or count is not below zero


def test_numbers_that_are_missing_give_no_value() -> None:
    assert of_numbers([None, None]).value is None


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(0.5, 0.5, 0.1), (0.4, 0.4, 0.2)], [True, False]),
        ([(0.5, 0.4, 0.1), (0.4, 0.5, 0.1)], [True, True]),
        ([(0.5, 0.5, 0.1), (0.5, 0.5, 0.1)], [True, True]),
        ([(0.5, 0.5, 0.2), (0.5, 0.5, 0.1), (0.6, 0.1, 0.9)], [False, True, True]),
        ([], []),
    ],
)
def test_the_pareto_set_holds_what_nothing_beats(
    points: list[tuple[float, ...]], front: list[bool]
) -> None:
    assert pareto(points) == front
