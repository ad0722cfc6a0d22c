"""Resampling whole clusters of facts: bootstrap for intervals, sign flips for p-values.

Facts about one subject stand or fall together, and so do facts of one relation: they are drawn
together. Clusters with the same sums are interchangeable, and a comparison of two runs has few
kinds of clusters; so a bootstrap draw is one multinomial draw over the kinds instead of one draw
for each of thousands of clusters. The law is exactly the same.

Suffixes: F facts, G clusters, K kinds of clusters, C columns, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE
from sftknow_eval.evaluation.statistics.quantiles import t_quantile

# Weights held at once: 64 MB in float64.
_CHUNK = 8_000_000

# From here on percentiles need no widening.
_MANY_CLUSTERS = 50


def cluster_sums(values_FC: np.ndarray, cluster_F: np.ndarray) -> np.ndarray:
    """Return (G, C): the sum of each column over the facts of each cluster.

    `cluster_F` holds 0 .. G-1, each at least once.
    """
    order = np.argsort(cluster_F, kind="stable")
    starts = np.flatnonzero(np.diff(cluster_F[order], prepend=-1))
    sums: np.ndarray = np.add.reduceat(values_FC[order], starts, axis=0)
    return sums


def bootstrap_sums(
    values_FC: np.ndarray, cluster_F: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (D, C): the column sums of `draws` resamples of whole clusters, with replacement."""
    kinds_KC, counts_K = _kinds(cluster_sums(values_FC, cluster_F))
    n_clusters = int(counts_K.sum())
    parts = [
        rng.multinomial(n_clusters, counts_K / n_clusters, size=size) @ kinds_KC
        for size in _chunks(draws, len(counts_K))
    ]
    return np.concatenate(parts)


def flipped_sums(
    differences_FC: np.ndarray, cluster_F: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (D, C): the column sums with the sign of each cluster drawn at random.

    That is how sums of differences spread when two runs are alike: which of the two answered is
    then a matter of names, for all facts of a cluster together.
    """
    kinds_KC, counts_K = _kinds(cluster_sums(differences_FC, cluster_F))
    parts = [
        (2.0 * rng.binomial(counts_K, 0.5, size=(size, len(counts_K))) - counts_K) @ kinds_KC
        for size in _chunks(draws, len(counts_K))
    ]
    return np.concatenate(parts)


def draws_interval(
    value: float, values_D: np.ndarray, n_clusters: int
) -> tuple[float, float] | None:
    """Return the 95% interval of a value from its bootstrap draws.

    The percentiles of the draws. With fewer than fifty clusters, such as the ten relations, these
    are too narrow: then Student's t with the standard deviation of the draws, which is widened by
    what resampling so few clusters loses. None where no interval can be had: a single cluster, or
    no draw that is a number.

    Source: Hesterberg, The American Statistician 69 (2015), 371: sections on small samples.
    """
    values_D = values_D[np.isfinite(values_D)]
    if n_clusters < 2 or not len(values_D):
        return None
    if n_clusters >= _MANY_CLUSTERS:
        low, high = np.quantile(values_D, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)
    margin = t_quantile(n_clusters - 1) * draws_error(values_D, n_clusters)
    return value - margin, value + margin


def draws_error(values_D: np.ndarray, n_clusters: int) -> float:
    """Return the standard error from bootstrap draws: too small by sqrt((G-1)/G), so widened."""
    spread = float(np.std(values_D[np.isfinite(values_D)]))
    return spread * math.sqrt(n_clusters / (n_clusters - 1))


def _kinds(sums_GC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kinds_KC, counts_K = np.unique(sums_GC, axis=0, return_counts=True)
    return kinds_KC.astype(np.float64), counts_K


def _chunks(draws: int, width: int) -> Iterator[int]:
    size = max(1, _CHUNK // width)
    for start in range(0, draws, size):
        yield min(size, draws - start)
