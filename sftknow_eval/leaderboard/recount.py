"""Counts from evidence: what follows from the judge's verdicts, and from what was claimed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.leaderboard.manifest_parts import Counts, Share, TokenDrift
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.base_store import BaseStore


def seed_counts(store: BaseStore, asked: np.ndarray, correct: np.ndarray, kl: np.ndarray) -> Counts:
    """Return all counts of one seed.

    Args:
        store: of the base.
        asked: positions in the store of the facts that were asked; int (facts).
        correct: verdicts on them; bool (facts).
        kl: token drift of them in nats, NaN where not measured; float (facts).
    """
    known = store.knows[asked]
    measured = kl[~np.isnan(kl)]
    drift = None
    if len(measured):
        mean = max(float(measured.mean()), 0.0)
        drift = TokenDrift(mean=mean, n=len(measured))
    by_domain = domain_counts(store.code[asked], correct)
    return Counts(
        id=by_domain["id"],
        ood=by_domain["ood"],
        lost=_share(int((known & ~correct).sum()), int(known.sum())),
        gained=_share(int((~known & correct).sum()), int((~known).sum())),
        token_drift=drift,
    )


def domain_counts(code: np.ndarray, correct: np.ndarray) -> dict[str, tuple[Share, ...] | None]:
    """Return right and asked facts by domain and stratum; None for a domain not asked.

    Args:
        code: 5 x (0 for ID, 1 for OOD) + stratum; int (facts).
        correct: bool (facts).
    """
    n = np.bincount(code, minlength=2 * N_STRATA).tolist()
    right = np.bincount(code[correct], minlength=2 * N_STRATA).tolist()
    found: dict[str, tuple[Share, ...] | None] = {}
    for place, domain in enumerate(DOMAINS):
        cells = range(place * N_STRATA, (place + 1) * N_STRATA)
        shares = tuple(_share(right[cell], n[cell]) for cell in cells)
        found[domain] = shares if any(n[cell] for cell in cells) else None
    return found


def _share(n_correct: int, n: int) -> Share:
    return Share(n_correct=n_correct, n=n)


def differences(claimed: Counts, found: Counts) -> list[str]:
    """Return one line for each claimed count that does not follow from the evidence."""
    said, is_so = claimed.model_dump(), found.model_dump()
    return [
        f"{name} is claimed as {_brief(said[name])}; the evidence gives {_brief(is_so[name])}"
        for name in said
        if not _same(said[name], is_so[name])
    ]


def _same(said: Any, is_so: Any) -> bool:
    if isinstance(said, Mapping) and isinstance(is_so, Mapping) and "mean" in said:
        close = abs(said["mean"] - is_so["mean"]) <= 1e-9 * max(1.0, is_so["mean"])
        return bool(said["n"] == is_so["n"] and close)
    return bool(said == is_so)


def _brief(value: Any) -> str:
    if value is None:
        return "not asked"
    if isinstance(value, Mapping) and "mean" in value:
        return f"{value['mean']:.6g} over {value['n']} facts"
    shares = value if isinstance(value, tuple | list) else [value]
    return ", ".join(f"{share['n_correct']}/{share['n']}" for share in shares)
