"""The share of known facts that was lost, of a whole split or as a panel of it tells.

A panel takes as many facts of rare strata as of common ones, so its facts are weighted by how
many they stand for. The interval is Wilson's at the effective number of facts.

Source: Kish, Survey Sampling (1965), for the effective number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftknow_eval.evaluation.results import CONFIDENCE

if TYPE_CHECKING:
    from sftknow_eval.evaluation.results import Outcome
    from sftknow_eval.report.panel import Panel


@dataclass(frozen=True, slots=True)
class Lost:
    """How much of what the base knows a fine-tune lost.

    Attributes:
        known: facts asked that the base knows; `lost` of them the fine-tune answers wrongly.
        value: the share, of the whole split where a panel was asked; None where nothing is known.
        low, high: its 95% interval.
    """

    known: int
    lost: int
    value: float | None
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            **{"known": self.known, "lost": self.lost, "value": self.value},
            **{"low": self.low, "high": self.high},
        }


def lost_share(
    base: Mapping[str, Outcome], finetuned: Iterable[Outcome], panel: Panel | None = None
) -> Lost:
    """Return the share of the base's known facts that the fine-tune answers wrongly.

    Args:
        base: the base's outcomes by fact id.
        finetuned: outcomes of the facts to count, a selection of those that the base was asked.
        panel: gives the weights, where only a panel was asked.
    """
    from statsmodels.stats.proportion import proportion_confint

    pairs = [
        (1.0 if panel is None else panel.weight((o.domain, o.stratum)), not o.recalled)
        for o in finetuned
        if base[o.fact_id].recalled
    ]
    if not pairs:
        return Lost(0, 0, None, None, None)
    total = sum(weight for weight, _ in pairs)
    value = sum(weight for weight, lost in pairs if lost) / total
    effective = total**2 / sum(weight**2 for weight, _ in pairs)
    low, high = proportion_confint(value * effective, effective, 1 - CONFIDENCE, method="wilson")
    return Lost(len(pairs), sum(lost for _, lost in pairs), value, float(low), float(high))
