"""What the paper found, tried on a study: shown, not shown, or not to be told.

The rule is in `effects`. Nothing is chosen by looking at the test facts: which cells are compared
follows from the paper alone. Here is what concerns answers; `findings_weights` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sftknow_eval.report import findings_weights as weights
from sftknow_eval.report.effects import MODEL, Effect, Finding, adjusted, effect_of
from sftknow_eval.report.study_read import PLAIN, Study, paper


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
        _order(study),
        weights.other_tasks(study),
        weights.own_facts(study),
        weights.layer_ranges(study),
        weights.concentration(study),
        weights.by_layer(study),
        weights.by_module(study),
    ]
    return [adjusted(finding) for finding in found]


def _more_data(study: Study) -> Finding:
    small, large = study.small, study.large
    curve = paper()[f"restoration_{MODEL}"]["id"]
    effects = []
    for s in study.strata if large else ():
        reported = curve["1920"][f"train-{s}"][0] - curve["240"][f"train-{s}"][0]
        found = study.difference(study.folders(PLAIN, s, large), study.folders(PLAIN, s, small))
        what = f"trained on stratum {s}: {large:,} facts beside {small:,}"
        effects.append(effect_of(what, reported, found))
    claim = "More training facts hurt: in-domain accuracy falls from 240 to 1,920 facts"
    return Finding("more-data", claim, tuple(effects), "Table 4, figure")


def _stratum(study: Study) -> Finding:
    table = paper()["accuracy_sft_1920"][MODEL]
    best = table["train-2"]["id"]["mean"]
    effects = [
        effect_of(
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
    return Finding("stratum", claim, tuple(effects), "Table 2")


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
    return Finding("token-drift", claim, tuple(effects), "Figure")


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
        return Finding("drift-knowledge", claim, (effect,), "Figure")
    # Of ranks, as Spearman's: the relation need not be a straight line.
    ranks = [_ranks([point[name] for point in points]) for name in ("kl", "accuracy")]
    found = pearsonr(*ranks)
    bounds = found.confidence_interval()
    low, high = (float(b) if math.isfinite(b) else None for b in (bounds.low, bounds.high))
    p = float(found.pvalue)
    effect = Effect(what, -1, None, float(found.statistic), low, high, unit="", p=p)
    return Finding("drift-knowledge", claim, (effect,), "Figure")


def _ranks(values: Sequence[float]) -> Any:
    from scipy.stats import rankdata

    return rankdata(values)


def _restoring(study: Study, ratio: float, ident: str, claim: str) -> Finding:
    table = paper()[f"restoration_{MODEL}"]
    place = table["restored_percent"].index(int(ratio))
    effects = []
    for s in study.strata if study.large else ():
        row = table["id"]["1920"][f"train-{s}"]
        found = study.difference(
            study.swept(s, study.large, ratio), study.swept(s, study.large, 0.0)
        )
        what = f"trained on {study.large:,} facts of stratum {s}: {ratio:g}% beside 0%"
        effects.append(effect_of(what, row[place] - row[0], found))
    return Finding(ident, claim, tuple(effects), "Table 4")


def _strategy(study: Study) -> Finding:
    table: Mapping[str, Any] = paper()[f"strategies_{MODEL}"]
    effects = []
    for domain, name in (("id", "in-domain"), ("ood", "out-of-domain")):
        reported = table["Parameter restoration"][domain] - table["SFT (divided)"][domain]
        for s in study.strata if study.large else ():
            one = study.folders("restoration", s, study.large)
            found = study.difference(one, study.folders(PLAIN, s, study.large), domain)
            what = f"trained on stratum {s}, {name}: restoration beside plain fine-tuning"
            effects.append(effect_of(what, reported, found))
    claim = "Plain fine-tuning and then restoring, by the ratio chosen on dev facts, is better"
    return Finding("strategy", claim, tuple(effects), "Table 7")


def _order(study: Study) -> Finding:
    """Set restoration and plain SFT beside the other strategies, trained on stratum 2 as there."""
    table: Mapping[str, Any] = paper()[f"strategies_{MODEL}"]
    ours = {
        "Parameter restoration": ("restoration", 2, study.large),
        "SFT (divided)": (PLAIN, 2, study.large),
        "SFT (mixed)": ("sft_mixed", "all", study.large),
        "LoRA": ("lora", 2, study.large),
        f"{MODEL}-Instruct": ("instruct", None, None),
    }
    effects = []
    for one in list(ours)[:2]:
        for other in list(ours)[2:]:
            for domain, name in (("id", "in-domain"), ("ood", "out-of-domain")):
                found = study.difference(
                    study.folders(*ours[one]), study.folders(*ours[other]), domain
                )
                what = f"{one} of stratum 2 beside {other}, {name}"
                effects.append(effect_of(what, table[one][domain] - table[other][domain], found))
    claim = "Strategies stand in the paper's order, restoration of plain fine-tuning first"
    return Finding("strategies", claim, tuple(effects), "Table 7")
