"""The report card's sections on token drift, weight change and restoration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table, percent, share
from sftknow_eval.report import card_charts as charts
from sftknow_eval.report.document import Block, Code, Figures, Paragraph, Tabled
from sftknow_eval.report.words import DOMAINS, count, number, point_value, points

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Comparison
    from sftknow_eval.report.examine import Examined, Restoration

_KL = {
    "kl_top10": "top ten tokens (the paper's)",
    "kl_full_finetuned_base": "full, fine-tune to base",
    "kl_full_base_finetuned": "full, base to fine-tune",
}
SHOWN = 20.0  # the paper's ratio


def missing(what: str, why: str | None) -> list[Block]:
    """Return the line that stands for a part that could not be computed."""
    return [Paragraph(f"{what} is missing: {why}", "warn")]


def tokens(examined: Examined, place: int) -> list[Block]:
    """Return how far the next-token probabilities moved."""
    found = examined.tokens.value
    if found is None:
        return missing("Token drift", examined.tokens.missing)
    columns = [
        Column("facts", numeric=False),
        Column("n"),
        *(Column(f"{how}") for _ in _KL for how in ("mean", "median", "95%")),
    ]
    rows = [
        [Cell(name), count(entry["kl_top10"]["n"]), *_kl_cells(entry)]
        for name, entry in token_groups(found)
        if entry["kl_top10"]["n"]
    ]
    caption = f"{examined.label}: Kullback-Leibler divergence of the next token, in nats"
    note = (
        "At the first token of the answer, on facts where the base's completion begins with it; "
        "the paper's subset: in-domain facts of stratum 4. The base completes its best template, "
        "the fine-tune is asked the question. 95%: the value that 95 percent of the facts stay "
        "below. Higher means that the fine-tune says other things than its base."
    )
    groups = [("", 2), *((title, 3) for title in _KL.values())]
    table = Table(f"tokens-{place}", caption, columns, rows, groups=groups, note=note)
    return [Tabled(table), *_relation_drift(examined.label, found, place)]


def _relation_drift(label: str, found: Mapping[str, Any], place: int) -> list[Block]:
    entries = sorted(
        ((name, entry["kl_top10"]) for name, entry in found["relations"].items()),
        key=lambda pair: -(pair[1]["mean"] or 0),
    )
    rows = [
        [Cell(name), count(entry["n"]), *(number(entry[k]) for k in ("mean", "median", "p95"))]
        for name, entry in entries
        if entry["n"]
    ]
    if not rows:
        return []
    columns = [Column("relation", numeric=False), *map(Column, ("n", "mean", "median", "95%"))]
    caption = f"{label}: token drift (top ten tokens) of the paper's subset, by relation"
    return [Tabled(Table(f"tokens-{place}-relations", caption, columns, rows))]


def token_groups(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the groups of facts of a token drift, by name."""
    strata = [
        (f"{DOMAINS[entry['domain']]}, stratum {entry['stratum']}", entry["answer_first"])
        for entry in found["strata"]
    ]
    return [("the paper's subset", found["overall"]), *strata]


def _kl_cells(entry: Mapping[str, Any]) -> list[Cell]:
    return [number(entry[kind][how]) for kind in _KL for how in ("mean", "median", "p95")]


def weights(examined: Examined, place: int) -> list[Block]:
    """Return which weights moved, and how concentrated the change is."""
    change = examined.weights.value
    if change is None:
        return missing("The change of the weights", examined.weights.missing)
    norm = change["whole"]["relative_norm"]
    size = "" if norm is None else f" The change has {percent(norm, 2)}% of the base's L2 norm."
    text = (
        f"{change['changed']:,} of {change['elements']:,} weights in the transformer's layers "
        f"changed at all ({percent(change['changed_fraction'])}%).{size}"
    )
    if not change["changed"]:
        return [Paragraph(text)]
    at = [entry for entry in change["ratios"] if entry["ratio"] in (1, 3, 5, 10, 20, 40, 60)]
    rows = [
        [
            Cell(f"{entry['ratio']:g}%", sort=entry["ratio"]),
            *(count(entry["restored"]), Cell(percent(entry["concentration"]))),
            Cell(f"{entry['of_changed']:.1f}"),
            Cell(MISSING if entry["threshold"] is None else f"{entry['threshold']:.3g}"),
        ]
        for entry in at
    ]
    columns = [
        Column("most changed", numeric=False),
        *map(Column, ("weights", "hold % of all change", "are % of the changed", "changed by")),
    ]
    caption = f"{examined.label}: how concentrated the change is"
    note = "Changed by: the smallest relative change |s - p| / |p| among these weights."
    table = Table(f"weights-{place}", caption, columns, rows, note=note)
    return [Paragraph(text), Tabled(table), Figures(_change_figures(examined.label, change, place))]


def _change_figures(label: str, change: Mapping[str, Any], place: int) -> list[Figure]:
    ratios = [entry["ratio"] for entry in change["ratios"]]
    at = ratios.index(SHOWN)
    figures = [
        Figure(
            f"concentration-{place}",
            f"{label}: share of all relative change in the most changed weights",
            charts.spoken(
                {
                    f"top {entry['ratio']:g}%": 100 * entry["concentration"]
                    for entry in change["ratios"]
                    if entry["concentration"] is not None
                }
            ),
            charts.concentration_chart(change["ratios"]),
        )
    ]
    for what in ("layer", "module"):
        shares = change[f"{what}s"]
        if not shares:
            continue
        words = {
            name: None if entry["share"][at] is None else 100 * entry["share"][at]
            for name, entry in shares.items()
        }
        figures.append(
            Figure(
                f"{what}s-{place}",
                f"{label}: where the {SHOWN:g}% most changed weights are, by {what}",
                charts.spoken(words),
                charts.places_chart(shares, at, what),
                "The tick is where the bar would end if change were spread evenly.",
            )
        )
    return figures


def restoration(examined: Examined, comparison: Comparison | None, place: int) -> list[Block]:
    """Return the curve, what the chosen ratio buys and how to get that model.

    Args:
        examined: the fine-tune.
        comparison: of the restored model with the plain fine-tune; None where none was chosen.
        place: of the fine-tune in the report.
    """
    found = examined.restoration.value
    if found is None:
        return missing("The restoration", examined.restoration.missing)
    blocks: list[Block] = [Paragraph(choice_sentence(found, comparison))]
    rows = curve_rows(found)
    names = {
        "ratio": "weights given back, percent of all",
        "of_changed": "weights given back, percent of the changed",
    }
    places = {"ratio": found.chosen, "of_changed": None}
    blocks.append(
        Figures(
            [
                Figure(
                    f"curve-{place}-{field}",
                    f"{examined.label}: accuracy over {title}",
                    charts.spoken(
                        {f"{r['series']} at {r[field]:.3g}%": 100 * r["value"] for r in rows}
                    ),
                    charts.curve_chart(rows, field, title, places[field]),
                    "The dashed line is the ratio chosen on dev facts." if places[field] else "",
                )
                for field, title in names.items()
            ]
        )
    )
    blocks.append(Tabled(_curve_table(examined.label, found, place)))
    return [*blocks, *_commands(examined, found)]


def choice_sentence(found: Restoration, comparison: Comparison | None) -> str:
    """Return what the ratio chosen on dev facts buys, in words."""
    if found.chosen is None:
        return f"No ratio was chosen: {found.why}"
    if not found.chosen:
        return f"Giving weights back does not help here: 0% was chosen on dev facts ({found.why})."
    assert comparison is not None
    pair = comparison.pair("restored")
    parts = []
    for domain, cells in pair.domains.items():
        gain = cells.mean.difference
        told = "chance alone may do that" if gain.covers_zero else "more than chance does"
        parts.append(
            f"{DOMAINS[domain]} {percent(cells.mean.other.value)}% to "
            f"{percent(cells.mean.accuracy.value)}% ({points(gain.value)} points, 95% "
            f"interval {points(gain.low)} to {points(gain.high)}: {told})"
        )
    return (
        f"Giving the {found.chosen:g}% most changed weights back to the base, chosen on dev facts "
        f"({found.why}), takes accuracy on the facts of this report from {'; '.join(parts)}."
    )


def curve_rows(found: Restoration) -> list[dict[str, Any]]:
    """Return the curve as rows: series, ratio, of_changed, value, low, high."""
    return [
        {
            "series": f"{DOMAINS[domain]}, {split}",
            **{"ratio": point["ratio"], "of_changed": point["of_changed"]},
            **{key: mean[key] for key in ("value", "low", "high")},
        }
        for split, sweep in sorted(found.sweeps.items(), key=lambda pair: pair[0] == "dev")
        for domain in DOMAINS
        for point in sweep["points"]
        if (mean := point_value(point, domain)) is not None
    ]


def _curve_table(label: str, found: Restoration, place: int) -> Table:
    series = [
        (split, domain)
        for split, sweep in sorted(found.sweeps.items(), key=lambda pair: pair[0] == "dev")
        for domain in DOMAINS
        if any(point_value(point, domain) for point in sweep["points"])
    ]
    splits = {
        split: {point["ratio"]: point for point in sweep["points"]}
        for split, sweep in found.sweeps.items()
    }
    first = next(iter(found.sweeps.values()))["points"]
    rows = []
    for point in first:
        cells = [Cell(f"{point['ratio']:g}%"), Cell(f"{point['of_changed']:.1f}")]
        for split, domain in series:
            there = splits[split][point["ratio"]]
            if there["same_as"] is not None:
                cells.append(Cell(f"as {there['same_as']:g}%", tone="muted"))
            else:
                cells.append(share(point_value(there, domain)))
        rows.append(cells)
    columns = [
        *(Column("given back", numeric=False), Column("% of the changed")),
        *(Column(f"{DOMAINS[domain]}, {split}") for split, domain in series),
    ]
    marked = frozenset(i for i, point in enumerate(first) if point["ratio"] == found.chosen)
    return Table(
        f"curve-{place}-table",
        f"{label}: accuracy (mean of the strata) over the share of weights given back",
        columns,
        rows,
        note="Percent with 95% intervals. The marked row was chosen on dev facts.",
        marked=marked,
    )


def _commands(examined: Examined, found: Restoration) -> list[Block]:
    if not found.chosen:
        return []
    base, name = shlex.quote(examined.base.name), shlex.quote(examined.name)
    ratio = f"{found.chosen:g}"
    written = f"sftknow restore {base} {name} --ratios {ratio} --out restored"
    blocks: list[Block] = [
        Paragraph(f"To get this model: a checkpoint on disk in restored/ratio-{ratio},"),
        Code(written),
    ]
    if examined.nature == "full fine-tune":
        loaded = (
            f"sftknow lm-eval --model sftknow-hf --model_args "
            f"pretrained={name},base={base},ratio={ratio} --tasks sftknow_cbqa"
        )
        blocks += [Paragraph("or restored while it loads, with nothing written:"), Code(loaded)]
    return blocks


def together(several: Sequence[Examined]) -> list[Block]:
    """Return the restoration curves of several fine-tunes in one chart."""
    rows = []
    for examined in several:
        if (found := examined.restoration.value) is not None:
            rows += [
                row | {"series": examined.label}
                for row in curve_rows(found)
                if row["series"].startswith("in-domain") and not row["series"].endswith("dev")
            ]
    if len({row["series"] for row in rows}) < 2:
        return []
    title = "In-domain accuracy over the share of weights given back"
    words = charts.spoken({f"{r['series']} at {r['ratio']:g}%": 100 * r["value"] for r in rows})
    chart = charts.curve_chart(rows, "ratio", "weights given back, percent")
    return [Figures([Figure("curves-together", title, words, chart)])]
