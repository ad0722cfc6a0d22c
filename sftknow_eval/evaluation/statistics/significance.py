"""Tests, adjusted for how many there are, and what they could have found.

All are paired and two-sided: the facts are the same in both runs, and only those on which the runs
differ say anything.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
from collections.abc import Iterator, Sequence

import numpy as np

from sftknow_eval.evaluation.results import CONFIDENCE

POWER = 0.8

# With fewer facts that changed, all one way, McNemar's exact test is seldom significant.
_LEAST_CHANGED = 8


def mcnemar_p(lost: int, gained: int) -> float | None:
    """Return the p-value of McNemar's exact test; None where no fact changed."""
    if not lost + gained:
        return None
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)


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
    """Return Holm's adjusted p-values of one family; tests without a p-value are no members."""
    from statsmodels.stats.multitest import multipletests

    members = [value for value in p_values if value is not None]
    if not members:
        return [None] * len(p_values)
    with _objects_at_rest():
        adjusted = iter(multipletests(members, alpha=1 - CONFIDENCE, method="holm")[1])
    return [None if value is None else float(next(adjusted)) for value in p_values]


@contextlib.contextmanager
def _objects_at_rest() -> Iterator[None]:
    """Keep what exists out of garbage collection: statsmodels collects at every call.

    With many objects that takes a hundred times as long as the adjustment itself.
    """
    # A caller may have done the same for longer.
    nested = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not nested:
            gc.unfreeze()


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
