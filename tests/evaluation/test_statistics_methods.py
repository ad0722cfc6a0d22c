"""Intervals and tests against published values, hand computation, SciPy, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sftknow_eval.evaluation.results import Share
from sftknow_eval.evaluation.statistics.clustered import clustered_error, error_parts
from sftknow_eval.evaluation.statistics.intervals import (
    Estimate,
    enough,
    mean_estimate,
    paired_estimate,
    share_estimate,
)
from sftknow_eval.evaluation.statistics.resampling import (
    bootstrap_sums,
    cluster_sums,
    draws_interval,
    flipped_sums,
)
from sftknow_eval.evaluation.statistics.significance import (
    flip_p,
    holm,
    least_detectable,
    mcnemar_p,
)

COUNTS = st.integers(0, 400)


def test_the_paired_interval_is_newcombes() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), 2635, method 10, of 36 / 12 / 2 / 0 pairs.
    found = paired_estimate(kept=36, lost=12, gained=2, unknown=0)
    assert (found.value, found.low, found.high) == pytest.approx((-0.2, -0.3404, -0.0569), abs=5e-5)


def test_the_paired_interval_has_a_width_where_nothing_changed() -> None:
    # 54 of 54 right twice: Wilson's lower limit is n / (n + z^2), and the other margin is 0.
    found = paired_estimate(kept=54, lost=0, gained=0, unknown=0)
    assert found.value == 0
    assert found.high == pytest.approx(1 - 54 / (54 + 1.959964**2))
    assert found.low == -found.high  # type: ignore[operator]


@settings(deadline=None)
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_paired_interval_turns_round_with_the_runs(k: int, lo: int, g: int, u: int) -> None:
    one, turned = paired_estimate(k, lo, g, u), paired_estimate(k, g, lo, u)
    if one.value is None:
        assert k + lo + g + u == 0
        return
    assert one.low is not None
    assert one.high is not None
    assert -1 - 1e-9 <= one.low <= one.value <= one.high <= 1 + 1e-9
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low))


def test_a_share_has_wilsons_interval_where_there_are_few_facts() -> None:
    share = Share(15, 148)
    found = share_estimate(share, np.array([0.0, 1.0]), 100)
    assert (found.method, (found.low, found.high)) == ("wilson", share.interval())
    # Many facts, but next to none right: the bootstrap has nothing to resample.
    assert share_estimate(Share(0, 5000), np.zeros(10), 100).method == "wilson"
    assert share_estimate(Share(400, 500), np.linspace(0.7, 0.9), 99).method == "cluster bootstrap"
    assert not enough(299, 100)


def test_the_mean_of_estimates_leaves_out_what_is_missing() -> None:
    parts = [Estimate(0.2, 0.1, 0.4), Estimate(None), Estimate(0.6, 0.3, 0.7)]
    found = mean_estimate(parts)
    # Zou and Donner by hand: the distances are 0.1 and 0.3 below, 0.2 and 0.1 above.
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - math.hypot(0.1, 0.3) / 2)
    assert found.high == pytest.approx(0.4 + math.hypot(0.2, 0.1) / 2)
    assert mean_estimate([Estimate(None)]) == Estimate(None)
    assert mean_estimate([Estimate(0.5), Estimate(0.1, 0.0, 0.2)]).low is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=1, max_size=60))
def test_cluster_sums_are_those_of_a_loop(rows: list[tuple[int, int]]) -> None:
    codes = np.unique([code for code, _ in rows], return_inverse=True)[1]
    values = np.array([[value, 1] for _, value in rows])
    expected = [values[codes == code].sum(axis=0) for code in range(codes.max() + 1)]
    assert np.array_equal(cluster_sums(values, codes), np.array(expected))


def test_resampling_kinds_of_clusters_is_resampling_clusters() -> None:
    # Against scipy.stats.bootstrap, which draws the clusters one by one.
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 150, 400), return_inverse=True)[1]
    values = (rng.random(400) < 0.3 + 0.4 * (codes % 2)).astype(int)
    table = np.stack([values, np.ones_like(values)], axis=1)
    sums = bootstrap_sums(table, codes, 20_000, np.random.default_rng(1))
    ours = sums[:, 0] / sums[:, 1]
    right, size = cluster_sums(table, codes).T
    theirs = stats.bootstrap(
        (right, size),
        lambda r, n, axis: r.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        n_resamples=20_000,
        vectorized=True,
        rng=2,
    ).bootstrap_distribution
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5e-4)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert np.quantile(ours, [0.025, 0.975]) == pytest.approx(
        np.quantile(theirs, [0.025, 0.975]), abs=2e-3
    )


def test_resamples_do_not_depend_on_how_many_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, codes = np.arange(40).reshape(20, 2), np.arange(20)
    whole = bootstrap_sums(values, codes, 50, np.random.default_rng(0))
    monkeypatch.setattr("sftknow_eval.evaluation.statistics.resampling._CHUNK", 100)
    assert np.array_equal(whole, bootstrap_sums(values, codes, 50, np.random.default_rng(0)))


def test_the_interval_of_ten_clusters_holds() -> None:
    # Simulated sets of ten relations, each with a level of its own: plain percentiles cover the
    # truth in about 90 of 100, the interval for few clusters in about 95 (standard error 0.7).
    rng, replicates = np.random.default_rng(0), 1000
    plain = ours = 0
    for _ in range(replicates):
        values = (rng.normal(0, 1, 10).repeat(30) + rng.normal(0, 1, 300))[:, None]
        draws = bootstrap_sums(values, np.arange(10).repeat(30), 1000, rng)[:, 0] / 300
        low, high = np.quantile(draws, [0.025, 0.975])
        plain += bool(low <= 0 <= high)
        low, high = draws_interval(values.mean(), draws, 10) or (0, 0)
        ours += bool(low <= 0 <= high)
    assert plain / replicates < 0.925
    assert ours / replicates == pytest.approx(0.95, abs=0.02)


def test_one_cluster_has_no_interval() -> None:
    assert draws_interval(0.1, np.array([0.1, 0.2]), 1) is None
    assert draws_interval(0.1, np.array([np.nan]), 5) is None
    values = np.random.default_rng(0).random(8)
    assert clustered_error(values, [np.ones(8, bool)], np.zeros(8, int)) == (values.mean(), None)


def test_errors_of_single_facts_are_those_of_a_mean() -> None:
    # With one fact a cluster and one group, the error is the textbook's s / sqrt(n).
    values = np.random.default_rng(0).random(50)
    mean, error = clustered_error(values, [np.ones(50, bool)], np.arange(50))
    assert (mean, error) == pytest.approx((values.mean(), stats.sem(values)))


def test_parts_of_errors_are_linear_and_add_up_to_those_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    strata, codes = rng.integers(0, 5, 300), rng.integers(0, 120, 300)
    codes = np.unique(codes, return_inverse=True)[1]
    groups = [strata == stratum for stratum in (0, 1, 3)]
    one, other = rng.random((2, 300))
    parts = error_parts(one, groups, codes) - error_parts(other, groups, codes)
    assert np.linalg.norm(parts) == pytest.approx(clustered_error(one - other, groups, codes)[1])
    assert np.isnan(error_parts(one, groups, np.zeros(300, int))).all()


def test_the_bootstrap_and_the_regression_give_the_same_error() -> None:
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 300, 900), return_inverse=True)[1]
    values = (rng.random(900) < 0.5).astype(float)
    draws = bootstrap_sums(np.stack([values, np.ones(900)], 1), codes, 10_000, rng)
    error = clustered_error(values, [np.ones(900, bool)], codes)[1]
    assert (draws[:, 0] / draws[:, 1]).std() == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize(("lost", "gained"), [(5, 0), (12, 2), (30, 30), (400, 300), (0, 1)])
def test_mcnemar_is_the_binomial_test_of_what_changed(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert mcnemar_p(lost, gained) == pytest.approx(expected)


def test_where_nothing_changed_there_is_no_test() -> None:
    assert mcnemar_p(0, 0) is None
    assert flip_p(0.0, np.zeros(10)) is None


def test_sign_flips_are_those_of_all_combinations() -> None:
    # Six clusters: the p-value of all 2^6 sign combinations, by enumeration.
    differences = np.array([3, 1, -1, 2, 1, 0, 1, 1])
    codes = np.array([0, 0, 1, 2, 3, 4, 5, 5])
    sums = cluster_sums(differences[:, None], codes)[:, 0]
    total = sums.sum()
    signs = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    exact = float((abs(signs @ sums) >= abs(total)).mean())
    flipped = flipped_sums(differences[:, None], codes, 20_000, np.random.default_rng(0))
    assert flip_p(float(total), flipped[:, 0]) == pytest.approx(exact, abs=0.01)


def test_holm_by_hand() -> None:
    # 3 x 0.01, max(that, 2 x 0.03), max(that, 1 x 0.04); the missing one is no member.
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(v) for v in (0.03, None, 0.06, 0.06)]
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    values = np.round(rng.random(200) ** 6, 4).tolist()  # with ties
    expected = multipletests(values, method="holm")[1]
    assert holm(values) == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("n", "changed"), [(1000, 200), (300, 60), (2000, 30)])
def test_the_least_detectable_difference_is_found_four_times_in_five(n: int, changed: int) -> None:
    least = least_detectable(n, changed)
    assert least is not None
    rng = np.random.default_rng(0)
    lost_share, gained_share = (changed / n + least) / 2, (changed / n - least) / 2
    counts = rng.multinomial(n, [lost_share, gained_share, 1 - changed / n], size=1000)
    found = [(mcnemar_p(int(lost), int(gained)) or 1) < 0.05 for lost, gained, _ in counts]
    # The exact test is somewhat cautious, the more so the fewer facts change.
    assert 0.72 <= np.mean(found) <= 0.88


def test_few_facts_can_show_nothing_and_clusters_show_less() -> None:
    assert least_detectable(5, 1) is None
    assert least_detectable(0, 0) is None
    alone = least_detectable(1000, 100)
    clustered = least_detectable(1000, 100, standard_error=0.05)
    assert alone is not None
    assert clustered is not None
    # (1.96 + 0.84) standard errors.
    assert clustered == pytest.approx(2.8016 * 0.05, rel=1e-3)
    assert clustered > alone
