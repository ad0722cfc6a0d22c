"""What the paper found, tried on a study: shown, not shown, or not to be told.

The rule is the same for all: *shown* when the 95% interval of the effect lies wholly on the
paper's side of zero; *not shown* when it lies wholly on the other side, or reaches zero and
does not reach the size that the paper reports; *cannot tell* otherwise. Nothing is chosen by
looking at the test facts: which cells are compared follows from the paper alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sftknow_eval.report.study_read import PLAIN, Study, paper

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Difference

Verdict = Literal["shown", "not shown", "cannot tell"]
Unit = Literal["points", "nats", ""]
_MODEL = "LLaMA-3-8B"


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect: what the paper reports, and what was measured.

    Attributes:
        what: the comparison.
        paper: the paper's size of it; `sign` is its direction where it gives no number.
        value: as measured; None where it could not be, with the reason in `why`.
        seeds: whether the interval covers the spread between draws.
        p: of the hypothesis that there is no effect; `p_holm` adjusted within the finding.
    """

    what: str
    sign: Literal[-1, 1]
    paper: float | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: Unit = "points"
    seeds: bool = True
    why: str = ""
    p: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Return what the interval says."""
        if self.low is None or self.high is None:
            return "cannot tell"
        low, high = sorted((self.sign * self.low, self.sign * self.high))
        if low > 0:
            return "shown"
        if high < 0 or (self.paper is not None and high < self.sign * self.paper):
            return "not shown"
        return "cannot tell"

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Finding:
    """One of the paper's findings and the effects that it is made of."""

    id: str
    claim: str
    effects: tuple[Effect, ...]

    @property
    def verdict(self) -> str:
        """Return the verdicts in one word, or how many of them are which."""
        kinds: list[str] = [effect.verdict for effect in self.effects]
        if not kinds:
            return "cannot tell"
        if len(set(kinds)) == 1:
            return kinds[0]
        names = ("shown", "not shown", "cannot tell")
        return ", ".join(f"{kind} {kinds.count(kind)}" for kind in names if kind in kinds)


def findings(study: Study) -> list[Finding]:
    """Return the paper's findings as the study shows them."""
    found = [
        _more_data(study),
        _stratum(study),
        _token_drift(study),
        _drift_and_knowledge(study),
        _restoring(study, 20.0, "restoring-20", "Restoring the 20% most changed weights helps"),
        _restoring(study, 60.0, "restoring-60", "Restoring 60% destroys the model"),
        _strategy(study),
    ]
    return [_adjusted(finding) for finding in found]


def _adjusted(finding: Finding) -> Finding:
    """Adjust the p-values of a finding's effects by Holm."""
    from sftknow_eval.evaluation.statistics.significance import holm

    values = holm([effect.p for effect in finding.effects])
    pairs = zip(finding.effects, values, strict=True)
    return replace(finding, effects=tuple(replace(effect, p_holm=p) for effect, p in pairs))


def _effect(what: str, reported: float, found: Difference | None) -> Effect:
    """Return an effect in points; `reported` is the paper's, in percent points."""
    sign: Literal[-1, 1] = -1 if reported < 0 else 1
    if found is None:
        return Effect(what, sign, reported / 100, why="these runs are not in the study")
    bounds = found.value, found.low, found.high
    return Effect(what, sign, reported / 100, *bounds, seeds=found.over_seeds, p=found.p)


def _more_data(study: Study) -> Finding:
    small, large = study.small, study.large
    curve = paper()[f"restoration_{_MODEL}"]["id"]
    effects = []
    for s in study.strata if large else ():
        reported = curve["1920"][f"train-{s}"][0] - curve["240"][f"train-{s}"][0]
        found = study.difference(study.folders(PLAIN, s, large), study.folders(PLAIN, s, small))
        what = f"trained on stratum {s}: {large:,} facts beside {small:,}"
        effects.append(_effect(what, reported, found))
    claim = "More training facts hurt: in-domain accuracy falls from 240 to 1,920 facts"
    return Finding("more-data", claim, tuple(effects))


def _stratum(study: Study) -> Finding:
    table = paper()["accuracy_sft_1920"][_MODEL]
    best = table["train-2"]["id"]["mean"]
    effects = [
        _effect(
            f"trained on stratum {s} beside stratum 2, {study.large:,} facts",
            table[f"train-{s}"]["id"]["mean"] - best,
            study.difference(
                study.folders(PLAIN, s, study.large), study.folders(PLAIN, 2, study.large)
            ),
        )
        for s in study.strata
        if s != 2 and study.large
    ]
    claim = "Facts of middling mastery are best to train on, and stratum 0 is worst"
    return Finding("stratum", claim, tuple(effects))


def _token_drift(study: Study) -> Finding:
    effects: list[Effect] = []
    smallest = study.sizes[0] if study.sizes else None
    for word, before, after in (
        ("falls", smallest, study.small),
        ("rises", study.small, study.large),
    ):
        if before is None or after is None or before == after:
            continue
        for s in study.strata:
            what = f"trained on stratum {s}: {word} from {before:,} to {after:,} facts"
            effects.append(
                _drift_effect(study, what, -1 if word == "falls" else 1, s, before, after)
            )
    claim = "Token drift falls up to 240 facts and rises after that"
    return Finding("token-drift", claim, tuple(effects))


def _drift_effect(
    study: Study, what: str, sign: Literal[-1, 1], stratum: int, before: int, after: int
) -> Effect:
    """Compare the drift of two sizes, fact by fact, over the draws that both have."""
    import numpy as np
    from scipy.stats import ttest_1samp

    one, other = (fact_drift(study, stratum, n) for n in (after, before))
    both = sorted(one.keys() & other.keys())
    if len(both) < 2:
        return Effect(what, sign, None, unit="nats", why="token drift was not measured")
    differences = np.array([one[name] - other[name] for name in both])
    if not differences.any():
        return Effect(what, sign, None, 0.0, 0.0, 0.0, unit="nats", seeds=False)
    test = ttest_1samp(differences, 0)
    interval = test.confidence_interval()
    value = float(differences.mean())
    bounds = float(interval.low), float(interval.high)
    p = float(test.pvalue)
    return Effect(what, sign, None, value, *bounds, unit="nats", seeds=False, p=p)


def fact_drift(study: Study, stratum: Any, n: Any) -> dict[str, float]:
    """Return the drift of each fact of the paper's subset, as the mean over the draws."""
    import pyarrow.parquet as pq

    values: dict[str, list[float]] = {}
    for run in study.runs(PLAIN, stratum=stratum, n=n):
        if not run.get("token_drift"):
            continue
        path = study.root / run["token_drift"] / "token_drift.parquet"
        if not path.is_file():
            continue
        for row in pq.read_table(path).to_pylist():
            if row["stratum"] == 4 and row["domain"] == "id" and row["answer_first"]:
                values.setdefault(row["fact_id"], []).append(row["kl_top10"])
    return {name: sum(found) / len(found) for name, found in values.items()}


def drift_points(study: Study) -> list[dict[str, Any]]:
    """Return mean drift and accuracy on stratum 4 of each run that has both."""
    points = []
    for run in study.runs():
        drift = study.file(run, "token_drift", "token_drift.json")
        scores = study.scores(run)
        if drift is None or scores is None:
            continue
        mean = drift["overall"]["kl_top10"]["mean"]
        accuracy = scores["id"]["alias_acc"]["strata"][4]["value"]
        if mean is not None and accuracy is not None:
            points.append({"run": run, "kl": mean, "accuracy": accuracy})
    return points


def _drift_and_knowledge(study: Study) -> Finding:
    from scipy.stats import pearsonr

    points = drift_points(study)
    what = "correlation of drift with accuracy on stratum 4, over runs"
    claim = "High token drift goes with lost accuracy on what the base masters"
    few = len({point["kl"] for point in points}) < 4
    if few or len({point["accuracy"] for point in points}) < 2:
        effect = Effect(what, -1, None, unit="", why="too few runs have both")
        return Finding("drift-knowledge", claim, (effect,))
    # Of ranks, as Spearman's: the relation need not be a straight line.
    ranks = [_ranks([point[name] for point in points]) for name in ("kl", "accuracy")]
    found = pearsonr(*ranks)
    bounds = found.confidence_interval()
    low, high = (float(b) if math.isfinite(b) else None for b in (bounds.low, bounds.high))
    p = float(found.pvalue)
    effect = Effect(what, -1, None, float(found.statistic), low, high, unit="", p=p)
    return Finding("drift-knowledge", claim, (effect,))


def _ranks(values: Sequence[float]) -> Any:
    from scipy.stats import rankdata

    return rankdata(values)


def _restoring(study: Study, ratio: float, ident: str, claim: str) -> Finding:
    table = paper()[f"restoration_{_MODEL}"]
    place = table["restored_percent"].index(int(ratio))
    effects = []
    for s in study.strata if study.large else ():
        row = table["id"]["1920"][f"train-{s}"]
        found = study.difference(
            study.swept(s, study.large, ratio), study.swept(s, study.large, 0.0)
        )
        what = f"trained on {study.large:,} facts of stratum {s}: {ratio:g}% beside 0%"
        effects.append(_effect(what, row[place] - row[0], found))
    return Finding(ident, claim, tuple(effects))


def _strategy(study: Study) -> Finding:
    table: Mapping[str, Any] = paper()[f"strategies_{_MODEL}"]
    effects = []
    for domain, name in (("id", "in-domain"), ("ood", "out-of-domain")):
        reported = table["Parameter restoration"][domain] - table["SFT (divided)"][domain]
        for s in study.strata if study.large else ():
            one = study.folders("restoration", s, study.large)
            found = study.difference(one, study.folders(PLAIN, s, study.large), domain)
            what = f"trained on stratum {s}, {name}: restoration beside plain fine-tuning"
            effects.append(_effect(what, reported, found))
    claim = "Plain fine-tuning and then restoring, by the ratio chosen on dev facts, is better"
    return Finding("strategy", claim, tuple(effects))
