"""What `results.json` says of one model, or of a fine-tune beside its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftknow_eval.evaluation.compare import transitions
from sftknow_eval.evaluation.results import Outcome, scores

RESULTS_FORMAT = "sftknow-results/1"
RESULTS_NAME = "results.json"


def summary_of(finetuned: Sequence[Outcome], base: Sequence[Outcome] | None) -> dict[str, Any]:
    """Return the scores of both models, and what was kept, lost and gained, ready for JSON.

    Raises:
        SettingsError: the outcomes are not of the same facts.
    """
    scored = {
        "finetuned": scores(finetuned),
        "base": scores(base) if base is not None else None,
    }
    return {"scores": scored, "transitions": _transitions(finetuned, base)}


def _transitions(
    finetuned: Sequence[Outcome], base: Sequence[Outcome] | None
) -> dict[str, Any] | None:
    if base is None:
        return None
    return {
        domain: {
            "strata": [entry.as_json() for entry in entries[:-1]],
            "all": entries[-1].as_json(),
        }
        for domain, entries in transitions(base, finetuned).items()
    }
