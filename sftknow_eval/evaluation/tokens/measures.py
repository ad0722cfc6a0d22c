"""The drift of single facts, and what is said of many of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow_eval.evaluation.documents import Document
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

MEASURES = ("kl_top10", "kl_full_finetuned_base", "kl_full_base_finetuned")
PROTOCOL_STRATUM = 4


@dataclass(frozen=True, slots=True)
class FactDrift:
    """Divergences of one fact, in nats.

    Attributes:
        kl_top10: KL(fine-tune || base) over the fine-tune's ten likeliest tokens, renormalised.
        kl_full_finetuned_base, kl_full_base_finetuned: over the whole vocabulary, in both
            directions; None where it was not measured.
        answer_first: whether the base's greedy completion begins with the answer.
    """

    kl_top10: float
    kl_full_finetuned_base: float | None
    kl_full_base_finetuned: float | None
    answer_first: bool


Measured = tuple[Document, FactDrift]


def of_protocol(document: Document, drift: FactDrift) -> bool:
    """Say whether the paper's protocol counts a fact.

    Source: section 4 (stratum 4, ID, the answer at the start of the base's completion).
    """
    return (
        document["domain"] == "id"
        and document["stratum"] == PROTOCOL_STRATUM
        and drift.answer_first
    )


def summary(drifts: Iterable[FactDrift]) -> dict[str, Any]:
    """Return count, mean, median and 95th percentile of each measure; None where there is none."""
    listed = list(drifts)
    return {name: _numbers([getattr(drift, name) for drift in listed]) for name in MEASURES}


def _numbers(values: Sequence[float | None]) -> dict[str, Any]:
    known = np.array([value for value in values if value is not None], np.float64)
    if not known.size:
        return {"n": 0, "mean": None, "median": None, "p95": None}
    return {
        "n": int(known.size),
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "p95": float(np.percentile(known, 95)),
    }


def summaries(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return what `token_drift.json` says of the facts.

    `overall` and `relations` are of the protocol's facts; `strata` has every domain and stratum,
    of the facts whose answer comes first and of all.
    """
    counted = [entry for entry in measured if of_protocol(*entry)]
    in_stratum = [
        document
        for document, _ in measured
        if document["domain"] == "id" and document["stratum"] == PROTOCOL_STRATUM
    ]
    relations = sorted({document["relation"] for document, _ in counted})
    return {
        "protocol": {"facts": len(counted), "of_stratum_4_id": len(in_stratum)},
        "overall": summary(drift for _, drift in counted),
        "strata": [
            _stratum(measured, domain, stratum) for domain in DOMAINS for stratum in range(N_STRATA)
        ],
        "relations": {
            relation: summary(drift for d, drift in counted if d["relation"] == relation)
            for relation in relations
        },
    }


def _stratum(measured: Sequence[Measured], domain: str, stratum: int) -> dict[str, Any]:
    held = [
        drift
        for document, drift in measured
        if document["domain"] == domain and document["stratum"] == stratum
    ]
    return {
        "domain": domain,
        "stratum": stratum,
        "protocol": domain == "id" and stratum == PROTOCOL_STRATUM,
        "answer_first": summary(drift for drift in held if drift.answer_first),
        "all": summary(held),
    }
