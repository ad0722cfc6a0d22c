"""Statistics of what runs know: paired comparisons, seeds and tiers, on SciPy and statsmodels.

`panel` holds the facts as arrays, checked to be the same in all runs. `intervals`, `resampling`,
`clustered` and `significance` are the methods. On them stand `paired` (one run against another),
`comparison` (all runs against the base and a reference), `seeds` (one strategy over its seeds) and
`tiers` (strategies told apart or not).
"""

from sftknow_eval.evaluation.statistics.comparison import Comparison, Pair, compare_runs
from sftknow_eval.evaluation.statistics.panel import Panel
from sftknow_eval.evaluation.statistics.seeds import OverSeeds, SeedSummary, seed_summary
from sftknow_eval.evaluation.statistics.tiers import (
    Difference,
    Side,
    compare_strategies,
    difference_over_seeds,
    differences,
    tiers,
)

__all__ = [
    "Comparison",
    "Difference",
    "OverSeeds",
    "Pair",
    "Panel",
    "SeedSummary",
    "Side",
    "compare_runs",
    "compare_strategies",
    "difference_over_seeds",
    "differences",
    "seed_summary",
    "tiers",
]
