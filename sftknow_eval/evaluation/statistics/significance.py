"""Tests, adjusted for how many there are, and what they could have found.

All are paired and two-sided: the facts are the same in both runs, and only those on which the runs
differ say anything.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE

POWER = 0.8

# With fewer facts that changed, all one way, McNemar's exact test is seldom significant.
_LEAST_CHANGED = 8


def mcnemar_p(lost: int, gained: int) -> float | None:
    """Return the p-value of McNemar's exact test; None where no fact changed.

    The binomial test of one half. As `holm`, without the half second that statsmodels takes to
    import for it.
    """
    if not lost + gained:
        return None
    from scipy.special import bdtr

    return min(2 * float(bdtr(min(lost, gained), lost + gained, 0.5)), 1.0)


def flip_p(observed: float, flipped_D: np.ndarray) -> float | None:
    """Return the p-value of a sign-flip test; None where nothing changed.

    The observed value counts as one of the draws, so that p is never 0.
    """
    if not flipped_D.any():
        return None
    # Sums of the same numbers in another order may differ in the last bits.
    beyond = int((np.abs(flipped_D) >= abs(observed) * (1 - 1e-9)).sum())
    return (beyond + 1) / (len(flipped_D) + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values of one family; tests without a p-value are no members.

    As statsmodels gives, which collects garbage at every call, of all that a board holds.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    members = np.array([value for value in p_values if value is not None])
    order = np.argsort(members, kind="stable")
    stepped = members[order] * np.arange(len(members), 0, -1)
    adjusted = np.empty_like(members)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    left = iter(adjusted.tolist())
    return [None if value is None else next(left) for value in p_values]


def least_detectable(n: int, changed: int, standard_error: float | None = None) -> float | None:
    """Return the least true difference that a paired test finds four times in five.

    At the 5% level, with as many facts changing as were seen to (at least eight: with fewer the
    exact test can hardly be significant at all). None where even a change of all facts would
    be missed, or there are none.

    Args:
        n: facts asked.
        changed: facts lost or gained.
        standard_error: of the difference where it is larger than that of independent facts.
    """
    if not n:
        return None
    spread = math.sqrt(max(changed, _LEAST_CHANGED) / n)
    spread = max(spread, (standard_error or 0.0) * math.sqrt(n))
    least = _effect_size(n) * spread
    return least if least <= 1 else None


@functools.lru_cache(maxsize=1024)
def _effect_size(n: int) -> float:
    """Return the least detectable mean of `n` numbers, in units of their standard deviation."""
    from statsmodels.stats.power import NormalIndPower

    # ratio=0: one sample, that of the differences.
    found = NormalIndPower().solve_power(
        effect_size=None, nobs1=n, alpha=1 - CONFIDENCE, power=POWER, ratio=0
    )
    return float(found)
