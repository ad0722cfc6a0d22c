"""From what lm-eval returns to outcomes per fact, and from those to scores with intervals.

Scores are counts first. A stratum without facts has no score: it is missing, not 0. lm-eval
gives no standard error for a stratum of one fact, nor for any group above it, and 0 for one
where all facts went the same way; the intervals here are defined for all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import DOMAINS, Domain
from sftknow_eval.mastery.table import N_STRATA

CONFIDENCE = 0.95
VERDICTS = ("alias_acc", "alias_word_acc", "exact_match")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model answered to one fact, and the verdicts on it.

    Attributes:
        prompt: the whole text the model was given, shots and chat template included.
        output: what it wrote, as the engine returned it.
        correct: verdict by metric (`VERDICTS`); None where a verdict is not known.
        token_f1: overlap with the nearest alias, 0 to 1; NaN where it is not known.
        subject: whom or what the fact is about; empty in files of before it was kept.
    """

    fact_id: str
    relation: str
    domain: Domain
    stratum: int
    prompt: str
    output: str
    correct: Mapping[str, bool | None]
    token_f1: float
    subject: str = ""

    @property
    def recalled(self) -> bool:
        """Whether an alias is contained in the answer: the paper's verdict, always known."""
        return bool(self.correct["alias_acc"])


@dataclass(frozen=True, slots=True)
class Share:
    """A proportion as counts, with its 95% Wilson interval; no value where `n` is 0."""

    n_correct: int
    n: int

    @property
    def value(self) -> float | None:
        """Return the proportion, or None when there is nothing to count."""
        return self.n_correct / self.n if self.n else None

    def interval(self) -> tuple[float, float] | None:
        """Return the interval, or None when there is nothing to count."""
        return _wilson(self.n_correct, self.n) if self.n else None

    def as_json(self) -> dict[str, Any]:
        """Return counts, value and interval."""
        low, high = self.interval() or (None, None)
        counts = {"n_correct": self.n_correct, "n": self.n}
        return {**counts, "value": self.value, "low": low, "high": high}


@functools.lru_cache(maxsize=4096)
def _wilson(n_correct: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(n_correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True)
class StrataMean:
    """The plain mean of the strata that hold facts, with a 95% interval.

    Attributes:
        value: the mean, or None when no stratum holds a fact.
        low, high: by Zou and Donner's method of variance estimates recovery, from the Wilson
            intervals of the strata: defined for any counts, and within 0 and 1.
        strata: the strata averaged.

    Source: section 3.3 (the mean); Zou and Donner, Statistics in Medicine 27 (2008), for the
        interval.
    """

    value: float | None
    low: float | None
    high: float | None
    strata: tuple[int, ...]


def mean_of_strata(shares: Sequence[Share]) -> StrataMean:
    """Return the mean over the strata of a domain, in which `shares` stand by stratum."""
    held = [(i, share) for i, share in enumerate(shares) if share.n]
    if not held:
        return StrataMean(None, None, None, ())
    values = [share.n_correct / share.n for _, share in held]
    bounds = [share.interval() or (0.0, 1.0) for _, share in held]
    below = math.sqrt(sum((v - b[0]) ** 2 for v, b in zip(values, bounds, strict=True)))
    above = math.sqrt(sum((v - b[1]) ** 2 for v, b in zip(values, bounds, strict=True)))
    mean = sum(values) / len(values)
    low, high = mean - below / len(values), mean + above / len(values)
    return StrataMean(mean, low, high, tuple(i for i, _ in held))


def shares_by_stratum(
    outcomes: Iterable[Outcome], domain: Domain, metric: str = "alias_acc"
) -> list[Share]:
    """Return the share of correct facts in each stratum of a domain."""
    n_correct, n = [0] * N_STRATA, [0] * N_STRATA
    for outcome in outcomes:
        verdict = outcome.correct[metric]
        if outcome.domain == domain and verdict is not None:
            n[outcome.stratum] += 1
            n_correct[outcome.stratum] += verdict
    return [Share(*counts) for counts in zip(n_correct, n, strict=True)]


def scores(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return, by domain and metric, the strata and their mean, ready for JSON."""
    found: dict[str, Any] = {}
    for domain in DOMAINS:
        found[domain] = {}
        for metric in VERDICTS:
            shares = shares_by_stratum(outcomes, domain, metric)
            mean = mean_of_strata(shares)
            found[domain][metric] = {
                "strata": [share.as_json() for share in shares],
                "mean": {"value": mean.value, "low": mean.low, "high": mean.high},
                "strata_in_mean": list(mean.strata),
            }
        found[domain]["token_f1"] = _mean_f1([o for o in outcomes if o.domain == domain])
    return found


def _mean_f1(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    strata = []
    for stratum in range(N_STRATA):
        found = (o.token_f1 for o in outcomes if o.stratum == stratum)
        values = [value for value in found if not math.isnan(value)]
        strata.append({"n": len(values), "value": sum(values) / len(values) if values else None})
    held = [entry["value"] for entry in strata if entry["value"] is not None]
    return {"strata": strata, "mean": {"value": sum(held) / len(held) if held else None}}


def outcomes_of(results: Mapping[str, Any]) -> list[Outcome]:
    """Return the outcomes in lm-eval's results, ordered by fact id.

    Args:
        results: what `lm_eval.simple_evaluate` returned with `log_samples=True`, or the lines of
            its sample files by task, under `samples`.

    Raises:
        SettingsError: the results hold no samples of our tasks.
    """
    samples = [
        sample
        for task, logged in results.get("samples", {}).items()
        if task.startswith("sftknow_cbqa_")
        for sample in logged
    ]
    if not samples:
        raise SettingsError(
            "lm-eval's results hold no samples of sftknow_cbqa. Run it with --log_samples."
        )
    found = [_outcome(sample) for sample in samples if sample["doc"]["id"]]
    return sorted(found, key=lambda outcome: outcome.fact_id)


def _outcome(sample: Mapping[str, Any]) -> Outcome:
    document = sample["doc"]
    return Outcome(
        fact_id=document["id"],
        relation=document["relation"],
        domain=document["domain"],
        stratum=document["stratum"],
        prompt=_prompt(sample["arguments"]),
        output=sample["resps"][0][0],
        correct={metric: bool(sample[metric]) for metric in VERDICTS},
        token_f1=float(sample["token_f1"]),
        subject=document.get("subject", ""),
    )


def _prompt(arguments: Any) -> str:
    # In its sample files lm-eval names what it lists in memory.
    first = arguments["gen_args_0"] if isinstance(arguments, Mapping) else arguments[0]
    return str(first["arg_0"] if isinstance(first, Mapping) else first[0])
