"""Means over groups of facts with errors that know of clusters, without resampling.

For averages over seeds and for ranking, where thousands of differences are wanted. The bootstrap
gives the same errors, more slowly.

Suffixes: F facts, G groups, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE
from sftknow_eval.evaluation.statistics.intervals import (
    Estimate,
    enough,
    interval_error,
    mean_estimate,
)
from sftknow_eval.evaluation.statistics.quantiles import normal_quantile, t_quantile
from sftknow_eval.evaluation.statistics.resampling import cluster_sums


def clustered_mean(
    values_F: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray
) -> Estimate:
    """Return the plain mean over groups of facts of values between 0 and 1.

    Where a group is small or nearly all of its values are 0 or 1, intervals are Wilson's.

    Args:
        values_F: a verdict, or a share of verdicts.
        groups: bool (F) each, none of them empty and no fact in two.
        cluster_F: subject of each fact.
    """
    parts = [_share(values_F[group], cluster_F[group]) for group in groups]
    if any(part.method == "wilson" for part in parts):
        return mean_estimate(parts)
    mean, error = clustered_error(values_F, groups, cluster_F)
    return _normal(mean, error)


def clustered_error(
    values_F: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray
) -> tuple[float, float | None]:
    """Return the plain mean over groups of facts and its standard error; None for one cluster.

    Source: Liang and Zeger, Biometrika 73 (1986), by statsmodels: a regression on one indicator a
        group, with cluster-robust errors.
    """
    from statsmodels.regression.linear_model import OLS

    indicators_FG = np.stack(groups, axis=1).astype(np.float64)
    inside = indicators_FG.any(axis=1)
    values_F, indicators_FG = values_F[inside].astype(np.float64), indicators_FG[inside]
    codes = np.unique(cluster_F[inside], return_inverse=True)[1]
    mean = float(np.mean(values_F @ indicators_FG / indicators_FG.sum(axis=0)))
    if codes.max() == 0:
        return mean, None
    fitted = OLS(values_F, indicators_FG).fit(cov_type="cluster", cov_kwds={"groups": codes})
    contrast = np.full(len(groups), 1 / len(groups))
    return mean, float(np.sqrt(max(contrast @ fitted.cov_params() @ contrast, 0.0)))


def error_parts(
    values_F: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray
) -> np.ndarray:
    """Return (C): what each cluster adds to the mean over groups beyond its expectation.

    The root of their sum of squares is the standard error that `clustered_error` gives, to
    rounding. They are linear in the values: those of a difference are the differences of those of
    its sides, so that a board computes them once for each of its rows. NaN for one cluster.
    """
    indicators_FG = np.stack(groups, axis=1).astype(np.float64)
    inside = indicators_FG.any(axis=1)
    values_F, indicators_FG = values_F[inside].astype(np.float64), indicators_FG[inside]
    codes = np.unique(cluster_F[inside], return_inverse=True)[1]
    n, n_groups = indicators_FG.shape
    shares_FG = indicators_FG / indicators_FG.sum(axis=0)
    rest_F = (values_F - indicators_FG @ (values_F @ shares_FG)) * shares_FG.sum(axis=1) / n_groups
    sums_C: np.ndarray = cluster_sums(rest_F[:, None], codes)[:, 0]
    sums_C *= few_clusters(len(sums_C), n, n_groups) ** 0.5
    return sums_C


def few_clusters(n_clusters: int, n_facts: int, n_groups: int) -> float:
    """Return statsmodels' correction of a variance for few clusters and for estimated means.

    NaN for one cluster.
    """
    if n_clusters < 2:
        return math.nan
    return n_clusters / (n_clusters - 1) * (n_facts - 1) / max(n_facts - n_groups, 1)


def _share(values_F: np.ndarray, cluster_F: np.ndarray) -> Estimate:
    n, total = len(values_F), float(values_F.sum())
    if enough(n, int(min(total, n - total))):
        return _normal(*clustered_error(values_F, [np.ones(n, bool)], cluster_F))
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(total, n, 1 - CONFIDENCE, method="wilson")
    return Estimate(total / n, float(low), float(high), "wilson", interval_error(low, high))


def _normal(mean: float, error: float | None) -> Estimate:
    if error is None:
        return Estimate(mean)
    margin = normal_quantile() * error
    return Estimate(mean, mean - margin, mean + margin, "cluster-robust", error)


def clustered_difference(
    difference_F: np.ndarray, groups: Sequence[np.ndarray], cluster_F: np.ndarray
) -> Estimate:
    """Return the plain mean over groups of facts of differences of shares.

    With Student's t for the number of clusters; no interval where there is one cluster only.
    """
    mean, error = clustered_error(difference_F, groups, cluster_F)
    if error is None:
        return Estimate(mean)
    n_clusters = len(np.unique(cluster_F[np.logical_or.reduce(groups)]))
    margin = t_quantile(n_clusters - 1) * error
    return Estimate(mean, mean - margin, mean + margin, "cluster-robust", error)
