"""ROUGE of one summary, for the task `sftknow_xsum`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = ("rouge1", "rouge2", "rougeL")


def scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return ROUGE-1, -2 and -L (F1, percent) of a generated summary."""
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer(NAMES, use_stemmer=True).score(doc["summary"], results[0])
    return {name: 100 * found[name].fmeasure for name in NAMES}
