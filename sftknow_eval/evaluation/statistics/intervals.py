"""Estimates and their 95% intervals: of shares, of paired differences, of means of strata.

Two families. *Score* intervals follow from Wilson's and hold for small counts, also where nothing
was right or nothing changed. The *cluster bootstrap* knows that facts of one subject go together
and needs numbers. `enough` says which is used; both kinds can be averaged over strata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sftknow_eval.evaluation.results import Share
from sftknow_eval.evaluation.statistics.quantiles import normal_quantile
from sftknow_eval.evaluation.statistics.resampling import draws_error, draws_interval

Method = Literal["wilson", "newcombe", "zou-donner", "cluster bootstrap", "cluster-robust"]

# Below these, score intervals: facts in all, and facts on the rarer side of the count.
ENOUGH_FACTS = 300
ENOUGH_RARE = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval; all None where there is nothing to estimate it from.

    Attributes:
        method: how the interval was made.
        standard_error: of the value, from the same source as the interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: Method | None = None
    standard_error: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return value, interval and method."""
        return {"value": self.value, "low": self.low, "high": self.high, "method": self.method}

    @property
    def covers_zero(self) -> bool:
        """Whether zero lies in the interval, its ends included; also where there is none."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def enough(n: int, rare: int) -> bool:
    """Return whether the bootstrap can be trusted with `n` facts, `rare` on the rarer side."""
    return n >= ENOUGH_FACTS and rare >= ENOUGH_RARE


def share_estimate(share: Share, draws_D: np.ndarray, n_clusters: int) -> Estimate:
    """Return a share with Wilson's interval, or from the bootstrap where there is enough."""
    if not share.n:
        return Estimate(None)
    if enough(share.n, min(share.n_correct, share.n - share.n_correct)):
        return bootstrap_estimate(share.value, draws_D, n_clusters)
    low, high = share.interval() or (0.0, 1.0)
    return Estimate(share.value, low, high, "wilson", interval_error(low, high))


def bootstrap_estimate(value: float | None, draws_D: np.ndarray, n_clusters: int) -> Estimate:
    """Return a value with the interval of its bootstrap draws."""
    interval = None if value is None else draws_interval(value, draws_D, n_clusters)
    if interval is None:
        return Estimate(value)
    return Estimate(value, *interval, "cluster bootstrap", draws_error(draws_D, n_clusters))


def paired_estimate(kept: int, lost: int, gained: int, unknown: int) -> Estimate:
    """Return the difference of two paired shares (second minus first) with a score interval.

    Source: Newcombe, Statistics in Medicine 17 (1998), 2635, method 10: Wilson's limits of both
        shares, combined with their correlation.
    """
    n = kept + lost + gained + unknown
    if not n:
        return Estimate(None)
    first, second = Share(kept + lost, n), Share(kept + gained, n)
    p1, p2 = first.n_correct / n, second.n_correct / n
    (l1, u1), (l2, u2) = first.interval() or (0.0, 1.0), second.interval() or (0.0, 1.0)
    margins = (kept + lost) * (gained + unknown) * (kept + gained) * (lost + unknown)
    products = float(kept * unknown - lost * gained)
    if products > 0:
        products = max(products - n / 2, 0.0)
    phi = products / math.sqrt(margins) if margins else 0.0

    def combined(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    value = p2 - p1
    low, high = value - combined(p2 - l2, u1 - p1), value + combined(u2 - p2, p1 - l1)
    return Estimate(value, low, high, "newcombe", interval_error(low, high))


def mean_estimate(parts: Sequence[Estimate]) -> Estimate:
    """Return the plain mean of estimates that do not depend on each other, such as of strata.

    Parts without a value are left out.

    Source: Zou and Donner, Statistics in Medicine 27 (2008), 1693: the distances to the limits
        add up as squares.
    """
    held = [part for part in parts if part.value is not None]
    if not held:
        return Estimate(None)
    mean = math.fsum(part.value or 0.0 for part in held) / len(held)
    below = above = 0.0
    for part in held:
        if part.value is None or part.low is None or part.high is None:
            return Estimate(mean)
        below += (part.value - part.low) ** 2
        above += (part.high - part.value) ** 2
    low, high = mean - math.sqrt(below) / len(held), mean + math.sqrt(above) / len(held)
    return Estimate(mean, low, high, "zou-donner", interval_error(low, high))


def interval_error(low: float, high: float) -> float:
    """Return the standard error from which the normal law would give this interval."""
    return (high - low) / (2 * normal_quantile())
