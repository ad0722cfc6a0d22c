"""Outcomes made from arrays, for tests of the statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftknow_eval.evaluation.results import Outcome


def outcomes(
    right: Sequence[bool] | np.ndarray,
    strata: Sequence[int] | np.ndarray,
    *,
    subjects: Sequence[object] | np.ndarray | None = None,
    relations: int = 10,
    domain: str = "id",
) -> list[Outcome]:
    """Return one outcome for each entry; without `subjects` every fact has one of its own."""
    named = range(len(right)) if subjects is None else subjects
    return [
        Outcome(
            f"{domain}-test-{number:05d}",
            f"P{number % relations}",
            domain,  # type: ignore[arg-type]
            int(stratum),
            "prompt",
            "output",
            {"alias_acc": bool(verdict), "alias_word_acc": None, "exact_match": None},
            float("nan"),
            f"subject {subject}",
        )
        for number, (verdict, stratum, subject) in enumerate(zip(right, strata, named, strict=True))
    ]
