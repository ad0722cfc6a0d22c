"""A study's tables beside the paper's: which weights moved, and what giving them back does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table, percent
from sftknow_eval.report.effects import MODEL
from sftknow_eval.report.study_read import PLAIN, Study, paper, point_at
from sftknow_eval.report.study_tables import measured, reported
from sftknow_eval.report.words import DOMAINS

SHOWN = 20.0


def _sizes(study: Study) -> list[tuple[int, str]]:
    """Return the study's sizes and the paper's that they stand for."""
    pairs = [(study.small, "240"), (study.large, "1920")]
    return [(n, there) for n, there in pairs if n is not None]


def concentration(study: Study) -> list[Table]:
    """Return how much of all change the most changed weights hold. Source: Table 3."""
    there = paper()[f"update_concentration_{MODEL}"]
    tops = there["top_percent"]
    rows = []
    for n, size in _sizes(study):
        for s in study.strata:
            change = study.first(s, n, lambda run: study.file(run, "weights", "change.json"))
            if change is None:
                continue
            held = {at["ratio"]: at["concentration"] for at in change["ratios"]}
            cells = [
                Cell(percent(held.get(float(top))), beside=reported(there[size][f"train-{s}"][i]))
                for i, top in enumerate(tops)
            ]
            rows.append([Cell(f"{n:,} facts of stratum {s}"), *cells])
    columns = [Column("trained on", numeric=False), *(Column(f"top {top}%") for top in tops)]
    note = f"Percent, exact. The paper's: {MODEL}, 240 and 1,920 facts."
    caption = "Table 3: share of all relative change that the most changed weights hold"
    return [Table("table-3", caption, columns, rows, note=note)] if rows else []


def restoration(study: Study) -> list[Table]:
    """Return accuracy over the share of weights given back. Source: Table 4."""
    there = paper()[f"restoration_{MODEL}"]
    ratios = there["restored_percent"]
    tables = []
    for domain, name in DOMAINS.items():
        rows = []
        for n, size in _sizes(study):
            for s in study.strata:
                sweep = _sweep(study, s, n)
                if sweep is None:
                    continue
                chosen = _chosen(study, s, n)
                cells = []
                for i, ratio in enumerate(ratios):
                    point = point_at(sweep, float(ratio))
                    score = point and point["scores"][domain]["alias_acc"]["mean"]
                    cells.append(measured(score, there[domain][size][f"train-{s}"][i]))
                rows.append([Cell(f"{n:,} facts of stratum {s}"), *cells, Cell(chosen)])
        if not rows:
            continue
        columns = [
            Column("trained on", numeric=False),
            *(Column(f"{ratio}%") for ratio in ratios),
            Column("chosen on dev"),
        ]
        note = (
            "Percent on test facts, one draw, with 95% intervals over facts. The ratio is chosen "
            f"on dev facts. The paper's: {MODEL}, 240 and 1,920 facts."
        )
        caption = f"Table 4: accuracy (mean of the strata), {name}, by share of weights given back"
        tables.append(Table(f"table-4-{domain}", caption, columns, rows, note=note))
    return tables


def _sweep(study: Study, stratum: Any, n: Any, split: str = "test") -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = study.first(
        stratum, n, lambda run: study.file(run, "sweep", split, "sweep.json")
    )
    return found


def _chosen(study: Study, stratum: Any, n: Any) -> str:
    choice = study.first(stratum, n, lambda run: study.file(run, "sweep", "choice.json"))
    return MISSING if choice is None else f"{choice['ratio']:g}%"


def curves(study: Study, domain: str, n: int) -> list[dict[str, Any]]:
    """Return the restoration curves of a size as rows: series, ratio, value, low, high."""
    rows = []
    for s in study.strata:
        sweep = _sweep(study, s, n)
        for point in sweep["points"] if sweep else ():
            if point["same_as"] is None and point["scores"]:
                mean = point["scores"][domain]["alias_acc"]["mean"]
                if mean["value"] is not None:
                    rows.append({"series": f"stratum {s}", "ratio": point["ratio"], **mean})
    return rows


def other_tasks(study: Study) -> list[Table]:
    """Return other tasks over the share of weights given back. Source: Table 5."""
    there = paper()[f"restoration_other_tasks_{MODEL}"]
    ratios = there["restored_percent"]
    rows = []
    for task in study.record.get("other_tasks") or ():
        path = study.root / (task.get("sweep") or "") / "sweep.json"
        if not task.get("sweep") or not path.is_file():
            continue
        sweep = read_json(path)
        rows += _task_rows(task["name"], sweep, ratios)
    rows += [
        [Cell(f"paper: {name}"), *(Cell(f"{value:.1f}") for value in values)]
        for name, values in there.items()
        if name != "restored_percent"
    ]
    columns = [Column("task", numeric=False), *(Column(f"{ratio}%") for ratio in ratios)]
    note = (
        "Percent, with 95% intervals from the task's standard error. The study's task is an "
        "invented one that is not about facts; the paper's rows are other tasks, as reported."
    )
    caption = "Table 5: other tasks, by share of weights given back"
    return [Table("table-5", caption, columns, rows, note=note)]


def _task_rows(name: str, sweep: Mapping[str, Any], ratios: Sequence[int]) -> list[list[Cell]]:
    first = point_at(sweep, 0.0) or sweep["points"][0]
    rows = []
    for task, metrics in first["tasks"].items():
        for metric in metrics:
            cells = []
            for ratio in ratios:
                point = point_at(sweep, float(ratio))
                entry = point and point["tasks"].get(task, {}).get(metric)
                cells.append(measured(_with_bounds(entry)))
            rows.append([Cell(f"{name}: {metric}"), *cells])
    return rows


def _with_bounds(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not entry:
        return None
    error = entry.get("stderr")
    value = entry["value"]
    if error is None:
        return {"value": value}
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


def training_set(study: Study) -> list[Table]:
    """Return accuracy on the facts trained on, by share given back. Source: Table 6."""
    there = paper()[f"restoration_training_set_{MODEL}"]
    ratios = there["restored_percent"]
    rows = []
    for n, size in _sizes(study):
        for s in study.strata:
            sweep = _sweep(study, s, n, "train")
            if sweep is None:
                continue
            cells = []
            for i, ratio in enumerate(ratios):
                point = point_at(sweep, float(ratio))
                score = point and point["scores"]["id"]["alias_acc"]["strata"][s]
                cells.append(measured(score, there[size][f"train-{s}"][i]))
            rows.append([Cell(f"{n:,} facts of stratum {s}"), *cells])
    columns = [Column("trained on", numeric=False), *(Column(f"{ratio}%") for ratio in ratios)]
    note = f"Percent, one draw, with 95% intervals. The paper's: {MODEL}, 240 and 1,920 facts."
    caption = "Table 6: accuracy on the facts that were trained on, by share of weights given back"
    return [Table("table-6", caption, columns, rows, note=note)] if rows else []


def places(study: Study) -> list[Table]:
    """Return where restored weights are, by layer and module. Source: Tables 9 and 10."""
    change = None
    for s in study.strata:
        change = study.first(s, study.large, lambda run: study.file(run, "weights", "change.json"))
        if change is not None:
            break
    if change is None:
        return []
    at = [entry["ratio"] for entry in change["ratios"]].index(SHOWN)
    tables = []
    for number, what in ((9, "layer"), (10, "module")):
        there = paper()[f"restored_share_by_{what}_{MODEL}"]
        by_name = dict(enumerate(there)) if isinstance(there, list) else dict(there)
        shares = change[f"{what}s"]
        total = sum(entry["elements"] for entry in shares.values())
        rows = []
        for name, entry in shares.items():
            # Layers of a model of another depth have no counterpart of the same number.
            known = what == "module" or len(shares) == len(by_name)
            beside = by_name.get(int(name) if what == "layer" else name) if known else None
            rows.append(
                [
                    Cell(f"layer {name}" if what == "layer" else name),
                    Cell(percent(entry["share"][at], 2), beside=reported(beside, 2)),
                    Cell(percent(entry["elements"] / total, 2)),
                    Cell(f"{entry['enrichment'][at]:.2f}" if entry["enrichment"][at] else MISSING),
                ]
            )
        note = "Percent, exact."
        if what == "layer" and len(shares) != len(by_name):
            note += (
                f" The paper's model has {len(by_name)} layers: the first holds {there[0]}%, the "
                f"last {there[-1]}%."
            )
        columns = [
            Column(what, numeric=False),
            *map(Column, ("of the restored weights", "of all weights", "over its size")),
        ]
        caption = f"Table {number}: where the {SHOWN:g}% most changed weights are, by {what}"
        tables.append(Table(f"table-{number}", caption, columns, rows, note=note))
    return tables


def layer_ranges(study: Study) -> list[Table]:
    """Return accuracy with whole layers given back. Source: Table 11."""
    there = paper()[f"layer_range_restoration_{MODEL}_id"]
    rows: list[list[Cell]] = []
    heads: list[str] = []
    for n in dict.fromkeys(n for n in (study.large, study.small) if n is not None):
        for s in study.strata:
            found = study.first(s, n, lambda run: study.file(run, "layers", "layers.json"))
            if found is None:
                continue
            names = [entry["layers"] for entry in found["ranges"]]
            heads = heads or names
            scores = {e["layers"]: e["scores"]["id"]["alias_acc"]["mean"] for e in found["ranges"]}
            plain = study.over_seeds(PLAIN, s, n)
            beside = dict(zip(there["layers"], there[f"train-{s}"], strict=True))
            cells = [measured(scores.get(name), beside.get(name)) for name in heads]
            none = measured(plain and plain["id"]["mean"])
            rows.append([Cell(f"{n:,} facts of stratum {s}"), none, *cells])
    columns = [
        *(Column("trained on", numeric=False), Column("none")),
        *(Column(f"layers {name}" if "-" in name else f"layer {name}") for name in heads),
    ]
    note = (
        "Percent, in-domain mean of the strata with 95% intervals: of one draw where layers are "
        "given back, over all draws where none is."
    )
    caption = "Table 11: accuracy with all weights of some layers given back"
    return [Table("table-11", caption, columns, rows, note=note), _paper_ranges()] if rows else []


def _paper_ranges() -> Table:
    there = paper()[f"layer_range_restoration_{MODEL}_id"]
    columns = [Column("trained on", numeric=False), *(Column(name) for name in there["layers"])]
    rows = [
        [Cell(f"stratum {name.partition('-')[2]}"), *(Cell(f"{value:.1f}") for value in values)]
        for name, values in there.items()
        if name != "layers"
    ]
    return Table("table-11-paper", f"Table 11 in the paper: {MODEL}, 240 facts", columns, rows)
