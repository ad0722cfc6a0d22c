"""The columns of every board, in the order in which they stand.

There is deliberately no column that mixes them: a row is read across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sftknow_eval.mastery.table import N_STRATA

Unit = Literal["share", "nats", "count", "hours"]


@dataclass(frozen=True, slots=True)
class Column:
    """What a column shows.

    Attributes:
        key: name in `Row.measures` and in exports.
        label: head of the column.
        unit: `share` (0 to 1), `nats`, `count` or `hours`.
        better: which way is better; None where neither is.
        declared: stated by the submitter, as it cannot be recomputed from the evidence.
        meaning: one sentence.
    """

    key: str
    label: str
    unit: Unit
    better: Literal["high", "low"] | None
    declared: bool
    meaning: str


def _strata(domain: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{domain}_{stratum}",
            f"{domain.upper()} {stratum}",
            "share",
            "high",
            False,
            f"Share of the {domain.upper()} facts of stratum {stratum} answered rightly.",
        )
        for stratum in range(N_STRATA)
    )


COLUMNS: tuple[Column, ...] = (
    Column("id", "ID", "share", "high", False, "Plain mean of the in-domain strata."),
    Column("ood", "OOD", "share", "high", False, "Plain mean of the out-of-domain strata."),
    Column("lost", "Lost", "share", "low", False, "Facts that the base knows and the row lost."),
    Column("gained", "Gained", "share", "high", False, "Facts the base does not know, and gained."),
    *_strata("id"),
    *_strata("ood"),
    Column(
        "token_drift",
        "Token drift",
        "nats",
        "low",
        False,
        "Mean top-10 KL between base and fine-tune on the protocol's facts.",
    ),
    Column(
        "restored_share",
        "Restored",
        "share",
        None,
        False,
        "Share of the region's weights that went back to the base, from the recipe.",
    ),
    Column("trained_parameters", "Trained", "count", None, True, "Parameters that were trained."),
    Column("gpu_hours", "GPU-hours", "hours", "low", True, "GPU-hours of training, if given."),
)

BY_KEY = {column.key: column for column in COLUMNS}
RANKED = ("id", "ood", "lost")
