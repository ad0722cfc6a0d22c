"""Counts from evidence: the judge again, and what follows from its verdicts.

The judge is `matching.contains` on the answer part of the output without special tokens, as in
the tasks. Most aliases are ASCII and most outputs hold no special token, so both are looked for
at once before the judge is asked fact by fact; a test holds the verdicts equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.evaluation.prompts import answer_part
from sftknow_eval.leaderboard.manifest_parts import Counts, Share, TokenDrift
from sftknow_eval.mastery.matching import contains, strip_special
from sftknow_eval.mastery.table import N_STRATA

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.base_store import BaseStore
    from sftknow_eval.leaderboard.manifest_parts import Asking

DOMAINS = ("id", "ood")
_BETWEEN = "\x00"


def judge_outputs(
    outputs: Sequence[str], aliases: Sequence[tuple[str, ...]], asking: Asking
) -> np.ndarray:
    """Return the verdict `alias_acc` on every output; bool (facts)."""
    texts = _without_special(outputs, asking.special_tokens)
    if asking.style == "plain" or asking.num_fewshot:
        texts = [answer_part(text, asking.style, asking.num_fewshot) for text in texts]
    else:
        texts = [text.lstrip() for text in texts]
    # The first form decides nearly always, and calling a function for it costs more than looking.
    verdicts = [
        forms[0] in text or ((len(forms) > 1 or not forms[0].isascii()) and _found(text, forms))
        for text, forms in zip(texts, aliases, strict=True)
    ]
    return np.array(verdicts, bool)


def _without_special(outputs: Sequence[str], tokens: Sequence[str]) -> Sequence[str]:
    """Return the outputs without special tokens, all in one pass where nothing can run together."""
    joined = _BETWEEN.join(outputs)
    if not any(token in joined for token in tokens):
        return outputs
    apart = joined.count(_BETWEEN) == len(outputs) - 1
    if not apart or any(_BETWEEN in token for token in tokens):
        return [strip_special(output, tokens) for output in outputs]
    return strip_special(joined, tokens).split(_BETWEEN)


def _found(text: str, aliases: tuple[str, ...]) -> bool:
    for alias in aliases:
        if alias in text:
            return True
        if not alias.isascii():
            return contains(text, aliases)
    return False


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
