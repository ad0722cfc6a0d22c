"""The paper's findings on weights given back and weights that moved, tried on a study."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.report.effects import MODEL, Effect, Finding, effect_of, kept_or_fallen
from sftknow_eval.report.study_read import PLAIN, Run, Study, paper, point_at

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Difference

SHARE = 20.0
_PAPER_TASK = "GSM8K accuracy"
_NOT_MEASURED = "not measured in this study"
# Weights of a layer of LLaMA-3-8B, from its public configuration: 4,096 wide, 14,336 inside the
# feed-forward part, 1,024 for keys and for values.
_MODULE_SIZES = {
    **dict.fromkeys(("mlp.down_proj", "mlp.up_proj", "mlp.gate_proj"), 4096 * 14336),
    **dict.fromkeys(("self_attn.o_proj", "self_attn.q_proj"), 4096 * 4096),
    **dict.fromkeys(("self_attn.v_proj", "self_attn.k_proj"), 4096 * 1024),
}


def _sizes(study: Study) -> list[tuple[int, str]]:
    """Return the study's sizes and the paper's that they stand for."""
    pairs = [(study.small, "240"), (study.large, "1920")]
    return [(n, there) for n, there in pairs if n is not None]


def other_tasks(study: Study) -> Finding:
    """Try whether other tasks outlive restoration. Source: Table 5."""
    there = paper()[f"restoration_other_tasks_{MODEL}"]
    reported = dict(zip(there["restored_percent"], there[_PAPER_TASK], strict=True))
    effects = []
    for task in study.record.get("other_tasks") or ():
        path = study.root / (task.get("sweep") or "") / "sweep.json"
        if not task.get("sweep") or not path.is_file():
            continue
        sweep = read_json(path)
        for name, metric, ratio, change in _task_changes(sweep, list(reported)[1:]):
            what = f"{task['name']}, {metric.partition(',')[0]} of {name}: {ratio}% beside 0%"
            effects.append(kept_or_fallen(what, reported[ratio] - reported[0], change))
    claim = "Restoring up to 20% keeps other tasks, and 40% or 60% destroys them"
    return Finding("other-tasks", claim, tuple(effects), "Table 5")


def _task_changes(
    sweep: Mapping[str, Any], ratios: Sequence[int]
) -> Iterator[tuple[str, str, int, Difference | None]]:
    """Return task, metric, ratio and the difference to nothing given back.

    The tasks' answers are not kept, so that the interval takes both scores as independent: it is
    wider than a paired one.
    """
    from sftknow_eval.evaluation.statistics import Difference

    first = point_at(sweep, 0.0)
    for name, metrics in (first["tasks"] if first else {}).items():
        for metric, before in metrics.items():
            for ratio in ratios:
                point = point_at(sweep, float(ratio))
                after = point and point["tasks"].get(name, {}).get(metric)
                if not after or before.get("stderr") is None or after.get("stderr") is None:
                    yield name, metric, ratio, None
                    continue
                value = after["value"] - before["value"]
                margin = 1.96 * (before["stderr"] ** 2 + after["stderr"] ** 2) ** 0.5
                found = Difference(value, value - margin, value + margin, None, over_seeds=False)
                yield name, metric, ratio, found


def own_facts(study: Study) -> Finding:
    """Try whether the facts trained on outlive restoration. Source: Table 6."""
    there = paper()[f"restoration_training_set_{MODEL}"]
    effects = []
    for n, size in _sizes(study):
        for s in study.strata:
            row = there[size][f"train-{s}"]
            for ratio, value in zip(there["restored_percent"][1:], row[1:], strict=True):
                what = f"{n:,} facts of stratum {s}: {ratio}% beside 0%"
                found = study.first(s, n, functools.partial(_own_change, study, ratio))
                effects.append(kept_or_fallen(what, value - row[0], found))
    claim = "Restoring 5% or 20% hardly undoes what was learned of the facts trained on"
    return Finding("own-facts", claim, tuple(effects), "Table 6")


def _own_change(study: Study, ratio: float, run: Run) -> Difference | None:
    """Return how a run's answers on its own facts change when weights are given back."""
    import numpy as np

    from sftknow_eval.evaluation.facts_file import read_outcomes
    from sftknow_eval.evaluation.statistics import Panel, difference_over_seeds

    sweep = study.file(run, "sweep", "train", "sweep.json")
    points = [point_at(sweep, at) for at in (ratio, 0.0)] if sweep else [None]
    if None in points:
        return None
    folder = study.root / run["sweep"] / "train"
    after, before = (
        read_outcomes(folder / f"ratio-{point['ratio']:g}", "finetuned")
        for point in points
        if point is not None
    )
    panel = Panel.of(before)
    after_SF, before_SF = (panel.verdicts(rows, "its own facts")[None] for rows in (after, before))
    everything = np.ones(before_SF.shape[1], bool)
    found = difference_over_seeds(after_SF, before_SF, [everything], panel.cluster_F["subject"])
    return _bounded(found, len(everything))


def _bounded(found: Difference, n: int) -> Difference:
    """Return a difference with bounds where no answer of n differs: those of a share of none."""
    if found.low is not None or found.value != 0:
        return found
    bound = 1 - 0.025 ** (1 / n)
    return replace(found, low=-bound, high=bound)


def layer_ranges(study: Study) -> Finding:
    """Try what giving whole layers back does. Source: Table 11."""
    effects = []
    for n in dict.fromkeys(n for n, _ in _sizes(study)):
        for s in study.strata:
            runs = [r for r in study.runs(PLAIN, stratum=s, n=n) if r.get("layers")]
            effects += _ranges_of(study, runs, f"{n:,} facts of stratum {s}", s) if runs else []
    claim = (
        "Restoring the first layers whole destroys the model, and middle ones leave it as it was"
    )
    return Finding("layer-ranges", claim, tuple(effects), "Table 11")


def _ranges_of(study: Study, runs: Sequence[Run], trained: str, stratum: int) -> list[Effect]:
    """Set each range of layers beside none; the first and last stand for the paper's."""
    ranges = [entry["layers"] for entry in study.file(runs[0], "layers", "layers.json")["ranges"]]
    ends = [tuple(map(int, (name.split("-") * 2)[:2])) for name in ranges]
    last = _depth(study, runs[0]) or max(end for _, end in ends) + 1
    effects = []
    for name, (start, end) in zip(ranges, ends, strict=True):
        place = "first" if start == 0 else "last" if end == last - 1 else "middle"
        folders = [f"{run['layers']}/layers-{name}" for run in runs]
        there = [folder for folder in folders if (study.root / folder).is_dir()]
        found = study.difference(there, [run["evaluation"]["test"] for run in runs])
        what = f"{trained}, {place} layers ({name})"
        effects.append(kept_or_fallen(what, _reported_range(stratum, name, place), found))
    return effects


def _depth(study: Study, run: Run) -> int | None:
    """Return the number of layers of a run's model, where its configuration is at hand."""
    config = study.file(run, "model", "config.json") or {}
    depth: int | None = config.get("num_hidden_layers")
    return depth


def _reported_range(stratum: int, name: str, place: str) -> float:
    """Return the paper's difference, in points; its middle layers are taken together."""
    there = paper()[f"layer_range_restoration_{MODEL}_id"]
    before = paper()[f"restoration_{MODEL}"]["id"]["240"][f"train-{stratum}"][0]
    row = dict(zip(there["layers"], there[f"train-{stratum}"], strict=True))
    values: list[float] = list(row.values())
    middle = sum(values[1:-1]) / len(values[1:-1])
    by_place = {"first": values[0], "middle": middle, "last": values[-1]}
    return float(row.get(name, by_place[place]) - before)


def _changes(study: Study, n: int | None) -> list[Mapping[str, Any]]:
    """Return which weights moved in the runs of a size, of all strata and draws."""
    runs = [run for run in study.runs(PLAIN, n=n) if isinstance(run["stratum"], int)]
    found = (study.file(run, "weights", "change.json") for run in runs)
    return [change for change in found if change is not None]


def over_runs(values: Sequence[float]) -> Difference | None:
    """Return the mean of an exact value over runs, with its 95% interval by Student's t.

    Of a single run there is no spread: its value is exact, and said to be of one draw.
    """
    import numpy as np
    from scipy.stats import ttest_1samp

    from sftknow_eval.evaluation.statistics import Difference

    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Difference(mean, mean, mean, None, over_seeds=len(values) > 1)
    test = ttest_1samp(values, 0)
    bounds = test.confidence_interval()
    return Difference(
        mean, float(bounds.low), float(bounds.high), float(test.pvalue), over_seeds=True
    )


def concentration(study: Study) -> Finding:
    """Try whether a few weights hold most of the change. Source: Table 3."""
    there = paper()[f"update_concentration_{MODEL}"]
    effects = []
    for n, size in _sizes(study):
        held = [
            at["concentration"] - 0.5
            for change in _changes(study, n)
            for at in change["ratios"]
            if at["ratio"] == 1.0 and at["concentration"] is not None
        ]
        rows = [row[0] for row in there[size].values()]
        what = f"{n:,} facts: what the top 1% hold, beyond half of the change"
        effects.append(effect_of(what, sum(rows) / len(rows) - 50, over_runs(held)))
    claim = "The 1% most changed weights hold more than half of all relative change"
    return Finding("concentration", claim, tuple(effects), "Table 3")


def by_layer(study: Study) -> Finding:
    """Try whether the earlier layers hold more than their share. Source: Table 9."""
    there: list[float] = paper()[f"restored_share_by_layer_{MODEL}"]
    reported = 100 * sum(there[: len(there) // 2]) / sum(there) - 50
    values = []
    for change in _changes(study, study.large):
        names = sorted(change["layers"], key=int)
        beyond = _beyond_size(change, "layers")
        if len(names) > 1 and beyond:
            values.append(sum(beyond[name] for name in names[: len(names) // 2]))
    what = f"earlier half of the layers, beyond its share of all weights, top {SHARE:g}%"
    claim = "The earlier layers hold more of the most changed weights than their size gives"
    return Finding("by-layer", claim, (effect_of(what, reported, over_runs(values)),), "Table 9")


def by_module(study: Study) -> Finding:
    """Try which modules hold more than their share. Source: Table 10."""
    there: dict[str, float] = paper()[f"restored_share_by_module_{MODEL}"]
    changes = [_beyond_size(change, "modules") for change in _changes(study, study.large)]
    effects = []
    for module, share in there.items():
        reported = share - 100 * _MODULE_SIZES[module] / sum(_MODULE_SIZES.values())
        values = [beyond[module] for beyond in changes if module in beyond]
        what = f"{module}, beyond its share of all weights, top {SHARE:g}%"
        effects.append(effect_of(what, reported, over_runs(values)))
    claim = "Some modules hold more of the most changed weights than their size gives, some fewer"
    return Finding("by-module", claim, tuple(effects), "Table 10")


def _beyond_size(change: Mapping[str, Any], what: str) -> dict[str, float]:
    """Return each part's share of the most changed weights less its share of all weights."""
    ratios = [entry["ratio"] for entry in change["ratios"]]
    if SHARE not in ratios:
        return {}
    at = ratios.index(SHARE)
    total = sum(entry["elements"] for entry in change[what].values())
    return {
        name: entry["share"][at] - entry["elements"] / total
        for name, entry in change[what].items()
        if entry["share"][at] is not None
    }
