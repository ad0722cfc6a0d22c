"""A study's figures: the paper's plotted results, drawn from the study's own runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.palette import SHAPES, STRATA
from sftknow_eval.report.card_charts import HEIGHT, WIDTH, legend, scale, spoken
from sftknow_eval.report.findings import drift_points, fact_drift
from sftknow_eval.report.study_read import PLAIN, Study
from sftknow_eval.report.study_weights import curves
from sftknow_eval.report.words import DOMAINS

_NAMES = [f"stratum {s}" for s in range(5)]
_SIZE = "training facts (log scale)"


def _lines(
    rows: Sequence[Mapping[str, Any]],
    x: alt.X,
    y: alt.Y,
    *,
    factor: float = 100,
    ordered: bool = True,
) -> alt.TopLevelMixin:
    """Draw a line for each training stratum, with its interval as a band."""
    keys = [key for key in ("value", "low", "high") if key in rows[0]]
    shown = [dict(row) | {key: factor * row[key] for key in keys} for row in rows]
    names = [name for name in _NAMES if any(row["series"] == name for row in rows)]
    chosen = [_NAMES.index(name) for name in names]
    colours, shapes = ([values[i] for i in chosen] for values in (STRATA, SHAPES))
    base = alt.Chart(alt.Data(values=shown)).encode(
        x=x, color=alt.Color("series:N", scale=scale(names, colours), legend=legend(3))
    )
    layers = []
    if "low" in keys:
        band = 0.14 if len(names) < 4 else 0.07
        layers.append(base.mark_area(opacity=band).encode(y=alt.Y("low:Q"), y2="high:Q"))
    if ordered:
        layers.append(base.mark_line().encode(y=y))
    tips = ["series:N", x.shorthand, *(alt.Tooltip(f"{k}:Q", format=".2f") for k in keys)]
    layers.append(
        base.mark_point(filled=True, opacity=1).encode(
            y=y,
            shape=alt.Shape("series:N", scale=scale(names, shapes), legend=legend(3)),
            tooltip=tips,
        )
    )
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def over_sizes(study: Study) -> list[Figure]:
    """Return accuracy over the number of training facts, by training stratum, for each base."""
    figures = []
    for base, (domain, name) in itertools.product(study.bases, DOMAINS.items()):
        rows: list[dict[str, Any]] = []
        for s in study.strata:
            for n in study.sizes:
                entry = (study.over_seeds(PLAIN, s, n, base["id"]) or {}).get(domain)
                mean = entry and entry["mean"]
                if mean and mean["mean"] is not None and mean["low"] is not None:
                    bounds = {key: mean[key] for key in ("low", "high")}
                    rows.append({"series": f"stratum {s}", "n": n, "value": mean["mean"], **bounds})
        if not rows:
            continue
        chart = _lines(rows, _sizes_axis(study), _accuracy_axis())
        title = f"Accuracy over the number of training facts, {name}{study.of(base['id'])}"
        place = "sizes" if base["id"] == study.main else f"sizes-{base['id']}"
        words = spoken({f"{r['series']}, {r['n']} facts": 100 * r["value"] for r in rows})
        caption = "By the stratum trained on; bands are 95% intervals over draws and facts."
        figures.append(Figure(f"{place}-{domain}", title, words, chart, caption))
    return figures


def _sizes_axis(study: Study) -> alt.X:
    axis = alt.Axis(values=study.sizes, grid=False)
    return alt.X("n:Q", title=_SIZE, axis=axis).scale(type="log", nice=False, padding=16)


def _accuracy_axis() -> alt.Y:
    return alt.Y("value:Q", title="accuracy, percent (mean of strata)").scale(zero=False)


def token_drift(study: Study) -> list[Figure]:
    """Return drift over the number of training facts, and drift against what is still known."""
    rows: list[dict[str, Any]] = []
    for s in study.strata:
        for n in study.sizes:
            if drift := fact_drift(study, s, n):
                mean = sum(drift.values()) / len(drift)
                rows.append({"series": f"stratum {s}", "n": n, "value": mean})
    figures = []
    if rows:
        y = alt.Y("value:Q", title="token drift, nats").scale(zero=True)
        title = "Token drift over the number of training facts"
        words = spoken({f"{r['series']}, {r['n']} facts": r["value"] for r in rows})
        caption = "On stratum-4 in-domain facts where the base answers first; mean of the draws."
        chart = _lines(rows, _sizes_axis(study), y, factor=1)
        figures.append(Figure("drift-sizes", title, words, chart, caption))
    points = [
        {
            "series": f"stratum {point['run']['stratum']}",
            "kl": point["kl"],
            "value": point["accuracy"],
        }
        for point in drift_points(study)
        if point["run"]["strategy"] == PLAIN
    ]
    if points:
        x = alt.X("kl:Q", title="token drift, nats")
        y = alt.Y("value:Q", title="accuracy on stratum 4, percent").scale(zero=False)
        title = "Token drift against accuracy on stratum 4"
        words = f"{len(points)} runs; " + spoken(
            {f"{p['series']} at {p['kl']:.2f} nats": 100 * p["value"] for p in points[:20]}
        )
        chart = _lines(points, x, y, ordered=False)
        caption = "A point for each run, by the stratum trained on."
        figures.append(Figure("drift-accuracy", title, words, chart, caption))
    return figures


def restoration(study: Study) -> list[Figure]:
    """Return accuracy over the share of weights given back, by training stratum."""
    figures = []
    for n in dict.fromkeys(n for n in (study.large, study.small) if n is not None):
        for domain, name in DOMAINS.items():
            rows = curves(study, domain, n)
            if not rows:
                continue
            axis = alt.Axis(values=sorted({row["ratio"] for row in rows}))
            x = alt.X("ratio:Q", title="weights given back, percent", axis=axis)
            x = x.scale(type="sqrt")
            title = f"Restoration after training on {n:,} facts, {name}"
            words = spoken({f"{r['series']} at {r['ratio']:g}%": 100 * r["value"] for r in rows})
            caption = "By the stratum trained on; bands are 95% intervals over facts."
            chart = _lines(rows, x, _accuracy_axis())
            figures.append(Figure(f"restoration-{n}-{domain}", title, words, chart, caption))
    return figures


def concentration(study: Study) -> list[Figure]:
    """Return how much of all change the most changed weights hold, by training stratum."""
    rows = []
    for s in study.strata:
        change = study.first(s, study.large, lambda run: study.file(run, "weights", "change.json"))
        for at in change["ratios"] if change else ():
            if at["concentration"] is not None and at["ratio"]:
                row = {"series": f"stratum {s}", "top": at["ratio"], "value": at["concentration"]}
                rows.append(row)
    if not rows:
        return []
    x = alt.X("top:Q", title="most changed weights, percent (log scale)").scale(type="log")
    y = alt.Y("value:Q", title="percent of all relative change").scale(domain=[0, 100])
    words = spoken(
        {f"{r['series']}, top {r['top']:g}%": 100 * r["value"] for r in rows if r["top"] in (1, 20)}
    )
    title = f"How concentrated the change is, {study.large:,} facts"
    return [Figure("concentration", title, words, _lines(rows, x, y))]
