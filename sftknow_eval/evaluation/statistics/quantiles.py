"""The quantiles that 95% intervals are made of.

Of `scipy.special`: the same functions as in `scipy.stats`, which takes half a second to import.
"""

from __future__ import annotations

import functools

from sftknow_eval.evaluation.results import CONFIDENCE


@functools.cache
def normal_quantile() -> float:
    """Return how many standard errors a 95% interval reaches to either side: 1.96."""
    from scipy.special import ndtri

    return float(ndtri((1 + CONFIDENCE) / 2))


@functools.lru_cache(maxsize=4096)
def t_quantile(freedom: int) -> float:
    """Return the same for Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
