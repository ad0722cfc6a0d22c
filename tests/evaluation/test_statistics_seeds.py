"""Strategies over their seeds and in tiers: by hand, and by simulation with known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from statistics_cases import outcomes
from statsmodels.stats.meta_analysis import combine_effects

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Share
from sftknow_eval.evaluation.statistics import (
    Side,
    compare_strategies,
    difference_over_seeds,
    differences,
    seed_summary,
    tiers,
)
from sftknow_eval.evaluation.statistics.seeds import over_seeds

STRATA = np.arange(600) % 5
GROUPS = [stratum == STRATA for stratum in range(5)]
ALONE = np.arange(600)


def runs(rng: np.random.Generator, seeds: int, spread: float, level: float = 0.0) -> np.ndarray:
    """Return bool (seeds, 600): facts of different difficulty, seeds of different luck."""
    difficulty = np.linspace(-2, 2, 600)[rng.permutation(600)]
    luck = rng.normal(level, spread, seeds)
    chance = 1 / (1 + np.exp(-(difficulty + luck[:, None])))
    verdicts: np.ndarray = rng.random((seeds, 600)) < chance
    return verdicts


def test_the_mean_over_seeds_is_that_of_the_strata_of_each() -> None:
    one = outcomes([1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 3, 3])
    other = outcomes([1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 3, 3])
    found = seed_summary([one, other]).domains["id"]
    assert found.mean.values == pytest.approx(((1 / 2 + 1) / 2, (1 / 4 + 1 / 2) / 2))
    assert found.mean.mean == pytest.approx((0.75 + 0.375) / 2)
    assert found.mean.between_seeds == pytest.approx(np.std([0.75, 0.375], ddof=1))
    assert found.strata[3].mean == pytest.approx(0.75)
    assert found.strata[1].mean is None
    assert found.lost_of_known is None


def test_lost_and_gained_are_against_the_base() -> None:
    base = outcomes([1, 1, 0, 0], [4, 4, 0, 0])
    tuned = outcomes([1, 0, 1, 0], [4, 4, 0, 0])
    found = seed_summary([tuned, base], base=base).domains["id"]
    assert found.lost_of_known is not None
    assert found.gained_of_unknown is not None
    assert found.lost_of_known.values == (0.5, 0.0)
    assert found.gained_of_unknown.values == (0.5, 0.0)


def test_one_seed_has_the_interval_of_its_facts_alone() -> None:
    verdicts = np.zeros((1, 60), bool)
    verdicts[0, :20] = True
    found = over_seeds(verdicts, [np.ones(60, bool)], np.arange(60))
    assert (found.low, found.high) == pytest.approx(Share(20, 60).interval())
    assert (found.between_seeds, found.by_chance, found.of_seeds) == (None, None, None)


def test_equal_seeds_do_not_spread() -> None:
    verdicts = np.tile(np.arange(600) % 2 == 0, (3, 1))
    found = over_seeds(verdicts, GROUPS, ALONE)
    assert (found.between_seeds, found.by_chance, found.of_seeds) == pytest.approx((0, 0, 0))
    assert found.low is not None
    assert found.low < 0.5


def test_seeds_that_differ_by_chance_only_have_no_spread_of_their_own() -> None:
    # Mean variances over 200 simulations of five seeds: what is seen is what chance gives.
    rng = np.random.default_rng(0)
    found = [over_seeds(runs(rng, 5, spread=0.0), GROUPS, ALONE) for _ in range(200)]
    seen = np.mean([(f.between_seeds or 0) ** 2 for f in found])
    chance = np.mean([(f.by_chance or 0) ** 2 for f in found])
    assert seen == pytest.approx(chance, rel=0.1)


def test_the_spread_of_seeds_is_found_apart_from_chance() -> None:
    # The truth is had from the same luck on very many facts: the standard deviation of the mean
    # chance over seeds.
    luck = np.random.default_rng(1).normal(0, 0.5, 10_000)
    difficulty = np.linspace(-2, 2, 600)
    truth = (1 / (1 + np.exp(-(difficulty + luck[:, None])))).mean(axis=1).std()
    rng = np.random.default_rng(0)
    found = [over_seeds(runs(rng, 5, spread=0.5), GROUPS, ALONE) for _ in range(200)]
    variance = np.mean([(f.of_seeds or 0) ** 2 for f in found])
    assert np.sqrt(variance) == pytest.approx(truth, rel=0.08)
    assert np.mean([f.by_chance for f in found]) < truth / 3  # type: ignore[arg-type]


def test_what_is_left_is_the_variance_of_a_random_effects_model() -> None:
    # statsmodels' estimators, which agree where all errors are equal.
    found = over_seeds(runs(np.random.default_rng(0), 5, spread=0.5), GROUPS, ALONE)
    assert found.by_chance is not None
    for method in ("chi2", "iterated"):
        effects = combine_effects(
            np.array(found.values), np.full(5, found.by_chance**2), method_re=method
        )
        assert found.of_seeds == pytest.approx(np.sqrt(effects.tau2))


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_the_interval_over_three_seeds_holds(spread: float) -> None:
    # 500 simulated strategies with three seeds; the truth is the mean over all seeds and facts.
    # Adding two margins is cautious where one of them is small: 95 to 99 of 100 are covered.
    luck = np.random.default_rng(1).normal(0, spread, 10_000)
    truth = (1 / (1 + np.exp(-(np.linspace(-2, 2, 600) + luck[:, None])))).mean()
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        found = over_seeds(runs(rng, 3, spread), GROUPS, ALONE)
        covered += found.low is not None and found.low <= truth <= (found.high or 0)
    assert 0.93 <= covered / 500 <= 1.0


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_strategies_that_are_alike_are_seldom_told_apart(spread: float) -> None:
    # 500 simulated pairs of strategies with three seeds each on the same facts: at most 5 in 100,
    # within what 500 replicates can show.
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(500):
        both = runs(rng, 6, spread)
        found = difference_over_seeds(both[:3], both[3:], GROUPS, ALONE)
        told += found.p is not None and found.p < 0.05
    assert told / 500 <= 0.075


def test_a_clear_difference_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    found = difference_over_seeds(
        runs(rng, 3, 0.05, level=0.5), runs(rng, 3, 0.05, level=-0.5), GROUPS, ALONE
    )
    assert found.p is not None
    assert found.p < 0.01
    assert found.low is not None
    assert found.low > 0
    assert found.over_seeds


def test_many_seeds_of_even_luck_give_welchs_test() -> None:
    # With one value a seed for all facts, facts add no variance: scipy's Welch test of the scores.
    one, other = np.repeat([[1.0], [0.8], [0.9]], 50, 1), np.repeat([[0.2], [0.5], [0.3]], 50, 1)
    found = difference_over_seeds(one, other, [np.ones(50, bool)], np.arange(50))
    expected = stats.ttest_ind(one[:, 0], other[:, 0], equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_with_a_single_seed_only_facts_count_and_it_says_so() -> None:
    rng = np.random.default_rng(0)
    one, three = runs(rng, 1, 0.3), runs(rng, 3, 0.3)
    sides = [Side.of(values, GROUPS, ALONE) for values in (three, one, three[::-1])]
    alone, several = differences(sides[0], sides[1:])
    assert (alone.over_seeds, several.over_seeds) == (False, True)
    assert several.value == 0


def test_equal_answers_are_not_told_apart() -> None:
    verdicts = np.ones((1, 600), bool)
    assert difference_over_seeds(verdicts, verdicts, GROUPS, ALONE).p is None


def test_strategies_are_compared_from_outcomes() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        [outcomes(verdicts, STRATA) for verdicts in runs(rng, 3, 0.1, level)]
        for level in (0.5, 0.0)
    )
    found = compare_strategies(one, other)
    assert found["id"].value > 0
    assert "ood" not in found
    with pytest.raises(SettingsError, match="the second strategy"):
        compare_strategies(one, [outcomes([1], [0])])


def test_no_runs_are_refused() -> None:
    with pytest.raises(SettingsError, match="no runs"):
        seed_summary([])


def _apart(*pairs: str) -> object:
    """Return p-values by which the given pairs, such as 'ad', are told apart."""

    def p_values(name: str, others: Sequence[str]) -> list[float]:
        return [1e-6 if name + other in pairs else 0.5 for other in others]

    return p_values


def test_a_tier_ends_before_the_first_that_is_told_apart() -> None:
    assert tiers("abcd", _apart("ac", "ad")) == [("a", "b"), ("c", "d")]  # type: ignore[arg-type]
    assert tiers("abc", _apart()) == [("a", "b", "c")]  # type: ignore[arg-type]
    # 'c' is not told apart from 'a', but 'b' above it is: it stands with 'b'.
    assert tiers("abc", _apart("ab")) == [("a",), ("b", "c")]  # type: ignore[arg-type]
    assert tiers("a", _apart()) == [("a",)]  # type: ignore[arg-type]
    assert tiers("", _apart()) == []  # type: ignore[arg-type]


def test_tests_of_one_tier_are_adjusted_together() -> None:
    def p_values(name: str, others: Sequence[str]) -> list[float]:
        return [0.02 for _ in others]

    # Three tests at 0.02 are 0.06 after Holm; a single one is told apart.
    assert tiers("abcd", p_values) == [("a", "b", "c", "d")]
    assert tiers("ab", p_values) == [("a",), ("b",)]
