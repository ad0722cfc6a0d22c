"""A study's tables beside the paper's: what was known, what was answered, by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftknow_eval.mastery.table import N_STRATA
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table, percent
from sftknow_eval.report.effects import MARGIN, MODEL, Finding
from sftknow_eval.report.study_read import PLAIN, Study, paper
from sftknow_eval.report.words import DOMAINS, count, interval, p_value, points

_STRATA_HEADS = [Column(f"stratum {s}") for s in range(N_STRATA)]
_BY_MARGIN = Cell(MISSING, tone="muted", title="told by the margin, not by a test of no change")
_TONES: Mapping[str, Any] = {"shown": "good", "not shown": "bad"}


def reported(value: float | None, digits: int = 1) -> str:
    """Return the paper's value as it stands beside a measured one."""
    return "" if value is None else f"paper {value:.{digits}f}"


def measured(entry: Mapping[str, Any] | None, beside: float | None = None) -> Cell:
    """Return a score with its interval, of one run or over seeds, beside the paper's value."""
    value = None if entry is None else entry.get("mean", entry.get("value"))
    if entry is None or value is None:
        text = "not measured"
        return Cell(MISSING, tone="muted", title=text, beside=reported(beside))
    low, high = entry.get("low"), entry.get("high")
    note = "" if low is None else interval(low, high)
    return Cell(percent(value), note, sort=value, beside=reported(beside))


def strata_counts(study: Study) -> list[Table]:
    """Return how many facts each base has in each stratum. Source: Tables 1 and 8."""
    from sftknow_eval.mastery.table import MasteryTable

    sets = [("train", "id", "train"), ("test", "id", "test_id"), ("test", "ood", "test_ood")]
    names = {"train": "train", "test_id": "test, in-domain", "test_ood": "test, out-of-domain"}
    rows: dict[str, list[list[Cell]]] = {base["id"]: [] for base in study.bases}
    for base in study.bases:
        table = MasteryTable.read(study.root / base["mastery"])
        columns = [table.column(name) for name in ("split", "domain", "stratum")]
        for split, domain, key in sets:
            inside = (columns[0] == split) & (columns[1] == domain)
            counts = [int((inside & (columns[2] == s)).sum()) for s in range(N_STRATA)]
            of_paper = paper()["strata_counts"][MODEL][key]
            cells = [
                Cell(
                    f"{n:,}",
                    f"{percent(n / sum(counts))}%" if sum(counts) else "",
                    beside=f"paper {100 * there / sum(of_paper):.1f}%",
                )
                for n, there in zip(counts, of_paper, strict=True)
            ]
            rows[base["id"]].append([Cell(names[key]), *cells, count(sum(counts))])
    columns_ = [Column("facts", numeric=False), *_STRATA_HEADS, Column("all")]
    note = f"Facts and their share; beside it the share that the paper reports for {MODEL}."
    first = Table(
        "table-1",
        f"Table 1: facts by stratum, {study.bases[0]['name']}",
        columns_,
        rows[study.main],
    )
    tables = [_with_note(first, note)]
    for base in study.bases[1:]:
        caption = f"Table 8: facts by stratum, {base['name']}"
        tables.append(
            Table(f"table-8-{base['id']}", caption, columns_, rows[base["id"]], note=note)
        )
    return tables


def _with_note(table: Table, note: str) -> Table:
    import dataclasses

    return dataclasses.replace(table, note=note)


def paper_strata() -> Table:
    """Return the facts by stratum of the paper's bases. Source: Table 8."""
    rows = []
    for model, sets in paper()["strata_counts"].items():
        for key, counts in sets.items():
            shares = [Cell(f"{n:,}", f"{100 * n / sum(counts):.1f}%") for n in counts]
            rows.append([Cell(f"{model}, {key.replace('_', ' ')}"), *shares, count(sum(counts))])
    columns = [Column("base and facts", numeric=False), *_STRATA_HEADS, Column("all")]
    return Table("table-8-paper", "Table 8 in the paper: its bases, as reported", columns, rows)


def accuracy(study: Study, base: str, ident: str, model: str) -> list[Table]:
    """Return accuracy by training stratum and test stratum, at the largest size.

    Source: Table 2.
    """
    tables = []
    for domain, name in DOMAINS.items():
        rows = []
        for s in _strata_of(study, base):
            found = study.over_seeds(PLAIN, s, study.large, base)
            cells = None if found is None else found.get(domain)
            there = paper()["accuracy_sft_1920"][model][f"train-{s}"][domain]
            scores = [
                measured(cells and cells["strata"][t], there["by_stratum"][t])
                for t in range(N_STRATA)
            ]
            rows.append(
                [Cell(f"stratum {s}"), *scores, measured(cells and cells["mean"], there["mean"])]
            )
        if not rows:
            continue
        columns = [Column("trained on", numeric=False), *_STRATA_HEADS, Column("mean")]
        caption = (
            f"Table 2: accuracy after training on {study.large:,} facts of one stratum, {name}"
            f"{study.of(base)}"
        )
        note = (
            "Percent, mean over draws with 95% intervals over draws and facts; the paper's are "
            f"of {model} and 1,920 facts."
        )
        tables.append(Table(f"{ident}-{domain}", caption, columns, rows, note=note))
    return tables


def _strata_of(study: Study, base: str) -> list[int]:
    runs = study.runs(PLAIN, base=base, n=study.large)
    return sorted({run["stratum"] for run in runs if isinstance(run["stratum"], int)})


def strategies(study: Study) -> list[Table]:
    """Return strategies side by side, controls included. Source: Table 7."""
    found = paper()[f"strategies_{MODEL}"]
    names = {
        **{"sft_divided": "SFT (divided)", "sft_mixed": "SFT (mixed)", "lora": "LoRA"},
        **{"restoration": "Parameter restoration", "instruct": f"{MODEL}-Instruct"},
    }
    cells = _cells(study)
    adjusted = _differences(study, cells)
    rows = []
    for key in cells:
        strategy, stratum, n = key
        entry = study.over_seeds(strategy, stratum, n) or _of_base(study, strategy)
        there = found.get(names.get(strategy, ""), {})
        row = [Cell(strategy), Cell(MISSING if stratum is None else str(stratum))]
        row.append(Cell(MISSING) if n is None else count(n))
        row.append(count(len(study.folders(strategy, stratum, n))))
        for domain in DOMAINS:
            domain_cells = entry.get(domain)
            row.append(measured(domain_cells and domain_cells["mean"], there.get(domain)))
        inside = entry.get("id")
        row += [measured(inside and inside[k]) for k in ("lost_of_known", "gained_of_unknown")]
        rows.append([*row, *adjusted.get(key, (Cell(MISSING), Cell(MISSING)))])
    columns = [
        *(Column("strategy", numeric=False), Column("stratum", numeric=False)),
        *map(Column, ("facts", "draws", "in-domain", "out-of-domain")),
        *map(Column, ("lost of known", "gained of unknown", "beside plain SFT", "p (Holm)")),
    ]
    note = (
        "Percent with 95% intervals. Accuracy is the mean of the strata; lost and gained are "
        "in-domain, beside the base. The last columns: in-domain difference to plain SFT on as "
        "many facts of the same stratum, in points; p adjusted by Holm over the table. The "
        f"paper's values are those of {MODEL}'s best cell, which it chose on test facts."
    )
    return [Table("table-7", "Table 7: strategies and controls", columns, rows, note=note)]


def _cells(study: Study) -> list[tuple[str, Any, Any]]:
    """Return strategy, stratum and size of every cell at the largest size, controls first."""
    found: dict[tuple[str, Any, Any], None] = {}
    order = {"base": 0, "base_again": 1, "format_only": 2}
    for run in sorted(study.runs(), key=lambda run: order.get(run["strategy"], 3)):
        if run["n"] == study.large or run["n"] is None or run["strategy"] in order:
            found[run["strategy"], run["stratum"], run["n"]] = None
    seeds = {(e["strategy"], e["stratum"], e["n"]) for e in study.comparison.get("seeds", ())}
    return [key for key in found if key in seeds or key[0] == "base"]


def _of_base(study: Study, strategy: str) -> dict[str, Any]:
    """Return the base's own scores in the shape of a summary over seeds."""
    for run in study.runs(strategy) if strategy == "base" else ():
        if (scores := study.scores(run)) is not None:
            nothing = {"lost_of_known": None, "gained_of_unknown": None}
            return {d: nothing | {"mean": scores[d]["alias_acc"]["mean"]} for d in DOMAINS}
    return {}


def _differences(
    study: Study, cells: Sequence[tuple[str, Any, Any]]
) -> dict[tuple[str, Any, Any], tuple[Cell, Cell]]:
    from sftknow_eval.evaluation.statistics.significance import holm

    found = {}
    for strategy, stratum, n in cells:
        plain = study.folders(PLAIN, stratum, n)
        if strategy == PLAIN or not plain:
            continue
        difference = study.difference(study.folders(strategy, stratum, n), plain)
        if difference is not None:
            found[strategy, stratum, n] = difference
    adjusted = holm([difference.p for difference in found.values()])
    shown = {}
    for (key, difference), p in zip(found.items(), adjusted, strict=True):
        note = f"{points(difference.low)} to {points(difference.high)}"
        shown[key] = Cell(points(difference.value), note, sort=difference.value), p_value(p)
    return shown


def controls(study: Study) -> list[Table]:
    """Return the base, asked once more with strata from half of its samples: the null row."""
    for run in study.runs("base_again"):
        path = study.root / run["evaluation"]["test"] / "null_row.json"
        if not path.is_file():
            continue
        from sftknow_eval.artifacts import read_json

        rows = []
        for domain, entry in read_json(path)["domains"].items():
            mean = entry["mean"]
            rows.append(
                [
                    *(Cell(DOMAINS[domain]), count(mean["n"]), Cell(percent(mean["base"]))),
                    Cell(percent(mean["again"])),
                    *(_difference_cell(mean[name]) for name in ("difference", "naive")),
                ]
            )
        columns = [
            Column("facts", numeric=False),
            *map(Column, ("n", "base", "base again", "difference", "scored naively")),
        ]
        note = (
            "The same model twice: what is seen here is chance and regression to the mean, not "
            "fine-tuning. Scored naively, the samples that gave the strata are scored again."
        )
        caption = "The null row: the base beside itself, in percent and points"
        return [Table("null-row", caption, columns, rows, note=note)]
    return []


def _difference_cell(entry: Mapping[str, Any]) -> Cell:
    note = f"{points(entry['low'])} to {points(entry['high'])}"
    return Cell(points(entry["value"]), note, sort=entry["value"])


def findings_table(found: Sequence[Finding]) -> Table:
    """Return the paper's findings and whether the study shows them."""
    rows = []
    for finding in found:
        tone = _TONES.get(finding.verdict, "")
        rows.append(
            [
                Cell(finding.claim, href=f"#effects-{finding.id}"),
                Cell(finding.verdict, tone=tone),
                Cell(finding.source),
                count(len(finding.effects)),
            ]
        )
    columns = [
        Column("the paper's finding", numeric=False),
        Column("here", numeric=False),
        Column("of", numeric=False),
        Column("effects tried"),
    ]
    note = (
        "Shown: the 95% interval of the effect lies wholly on the paper's side of zero. Not shown: "
        "wholly on the other side, or it reaches zero and not the size that the paper reports. "
        "Cannot tell: neither. Where the paper has something kept: shown if the interval lies "
        f"wholly above a fall of {100 * MARGIN:g} points, not shown if wholly below. The intervals "
        "stand each for itself; p-values in the tables of effects are adjusted by Holm."
    )
    return Table("findings", "The paper's findings in this study", columns, rows, note=note)


def effects_table(finding: Finding) -> Table:
    """Return the effects of one finding."""
    rows = []
    for effect in finding.effects:
        size = _sized(effect.paper, effect.unit)
        if effect.paper is None:
            size = "up" if effect.sign > 0 else "down"
        bounds = (_sized(bound, effect.unit) for bound in (effect.low, effect.high))
        note = " to ".join(bounds) if effect.low is not None else effect.why
        rows.append(
            [
                Cell(effect.what, "" if effect.seeds or effect.value is None else "one draw"),
                Cell(effect.verdict, tone=_TONES.get(effect.verdict, "")),
                Cell(size),
                Cell(_sized(effect.value, effect.unit), note),
                p_value(effect.p_holm) if effect.margin is None else _BY_MARGIN,
            ]
        )
    units = {effect.unit for effect in finding.effects} - {""}
    columns = [
        *(Column("effect", numeric=False), Column("verdict", numeric=False)),
        *(Column("paper"), Column("here"), Column("p (Holm)")),
    ]
    unit = f" (in {units.pop()})" if units else ""
    return Table(f"effects-{finding.id}", f"{finding.claim}{unit}", columns, rows)


def _sized(value: float | None, unit: str) -> str:
    """Return an effect with its sign, in its unit."""
    if value is None or unit == "points":
        return points(value)
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
