"""The charts of a report card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from sftknow_eval.mastery.table import N_STRATA
from sftknow_eval.pages.palette import SERIES, SHAPES, var

DOMAINS = {"id": "in-domain", "ood": "out-of-domain"}
_KINDS = {
    "kept": "kept: base right, fine-tune right",
    "lost": "lost: base right, fine-tune wrong",
    "gained": "gained: base wrong, fine-tune right",
    "unknown": "neither: both wrong",
}
WIDTH, HEIGHT = 350, 230


def legend(columns: int = 2) -> alt.Legend:
    """Return a legend that stands below its chart."""
    return alt.Legend(title=None, orient="bottom", columns=columns)


def scale(names: Sequence[str], values: Sequence[str]) -> alt.Scale:
    """Return a scale of names to colours or shapes."""
    return alt.Scale(domain=list(names), range=list(values[: len(names)]))


def transitions_chart(cells: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Draw what became of the facts, by stratum.

    Args:
        cells: by stratum, with kept, lost, gained, unknown and n.
    """
    rows = [
        {
            **{"stratum": str(s), "kind": text, "order": place, "facts": cell[kind]},
            "share": 100 * cell[kind] / cell["n"],
        }
        for s, cell in enumerate(cells)
        if cell["n"]
        for place, (kind, text) in enumerate(_KINDS.items())
    ]
    colours = scale(list(_KINDS.values()), [var(kind) for kind in _KINDS])
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(stroke=var("raised"), strokeWidth=1)
        .encode(
            x=alt.X("share:Q", title="percent of the stratum's facts").scale(domain=[0, 100]),
            y=alt.Y("stratum:N", title="stratum", sort=[str(s) for s in range(N_STRATA)]),
            color=alt.Color("kind:N", scale=colours, legend=legend(1)),
            order="order:Q",
            tooltip=["stratum:N", "kind:N", "facts:Q", alt.Tooltip("share:Q", format=".1f")],
        )
        .properties(width=WIDTH, height=170)
    )


def accuracy_chart(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> alt.TopLevelMixin:
    """Draw accuracy by stratum with intervals, a series for each model.

    Args:
        series: by model, then by stratum: value, low and high, as shares.
    """
    names = list(series)
    rows = [
        {
            **{"model": name, "stratum": str(s)},
            **{key: 100 * cell[key] for key in ("value", "low", "high")},
        }
        for name, cells in series.items()
        for s, cell in enumerate(cells)
        if cell["value"] is not None
    ]
    x = alt.X("stratum:N", title="stratum of the base's mastery", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("model:N", sort=names)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=x, xOffset=offset, color=alt.Color("model:N", scale=scale(names, SERIES), legend=legend())
    )
    spread = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title="accuracy, percent").scale(domain=[0, 100]), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y="value:Q",
        shape=alt.Shape("model:N", scale=scale(names, SHAPES), legend=legend()),
        tooltip=["model:N", "stratum:N", *_numbers("value", "low", "high")],
    )
    return (spread + points).properties(width=WIDTH, height=HEIGHT)


def relations_chart(rows: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Draw the share lost by relation, with intervals.

    Args:
        rows: relation, domain, value, low, high; the worst first.
    """
    values = [
        {
            "relation": row["label"],
            "domain": DOMAINS[row["domain"]],
            **{key: 100 * row[key] for key in ("value", "low", "high")},
        }
        for row in rows
    ]
    names = list(DOMAINS.values())
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("relation:N", title=None, sort=[row["label"] for row in rows]),
        color=alt.Color("domain:N", scale=scale(names, SERIES), legend=legend()),
    )
    spread = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="percent of known facts lost").scale(domain=[0, 100]), x2="high:Q"
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        x="value:Q",
        shape=alt.Shape("domain:N", scale=scale(names, SHAPES), legend=legend()),
        tooltip=["relation:N", "domain:N", *_numbers("value", "low", "high")],
    )
    return (spread + points).properties(width=250, height=max(80, 17 * len(rows)))


def curve_chart(
    rows: Sequence[Mapping[str, Any]], x: str, title: str, chosen: float | None = None
) -> alt.TopLevelMixin:
    """Draw scores over the share of weights given back, with intervals.

    Args:
        rows: series, the field `x`, value, low, high (shares).
        x: field of the horizontal axis.
        title: of that axis.
        chosen: marks a place on it.
    """
    names = list(dict.fromkeys(row["series"] for row in rows))
    shown = [dict(row) | {key: 100 * row[key] for key in ("value", "low", "high")} for row in rows]
    # The square root gives room to the small ratios, of which there are most.
    base = alt.Chart(alt.Data(values=shown)).encode(
        x=alt.X(f"{x}:Q", title=title, axis=alt.Axis(values=_places(rows, x))).scale(type="sqrt"),
        color=alt.Color("series:N", scale=scale(names, SERIES), legend=legend()),
    )
    spread = base.mark_area(opacity=0.14).encode(y="low:Q", y2="high:Q")
    line = base.mark_line().encode(y=alt.Y("value:Q", title="accuracy, percent").scale(zero=False))
    points = base.mark_point(filled=True, opacity=1).encode(
        y="value:Q",
        shape=alt.Shape("series:N", scale=scale(names, SHAPES), legend=legend()),
        tooltip=["series:N", f"{x}:Q", *_numbers("value", "low", "high")],
    )
    layers = [spread, line, points]
    if chosen is not None:
        mark = alt.Chart(alt.Data(values=[{x: chosen}])).encode(x=f"{x}:Q")
        layers.insert(0, mark.mark_rule(strokeDash=[4, 4], color=var("muted")))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _places(rows: Sequence[Mapping[str, Any]], x: str) -> list[float]:
    """Return where to write numbers on an axis that has few places."""
    known = sorted({round(row[x], 1) for row in rows})
    return [place for i, place in enumerate(known) if i == 0 or place >= 1]


def places_chart(
    shares: Mapping[str, Mapping[str, Any]], place: int, what: str
) -> alt.TopLevelMixin:
    """Draw where the most changed weights lie, beside what the size of each place would say.

    Args:
        shares: by layer or module, as in the change report.
        place: index of the ratio.
        what: `layer` or `module`.
    """
    total = sum(share["elements"] for share in shares.values())
    rows = [
        {
            what: name,
            "changed": 100 * (share["share"][place] or 0),
            "size": 100 * share["elements"] / total,
        }
        for name, share in shares.items()
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(f"{what}:N", title=what, sort=list(shares))
    )
    bars = base.mark_bar(color=var("series-1")).encode(
        x=alt.X("changed:Q", title="percent of the most changed weights"),
        tooltip=[f"{what}:N", *_numbers("changed", "size")],
    )
    ticks = base.mark_tick(color=var("series-2"), thickness=3, height=14, opacity=1).encode(
        x="size:Q"
    )
    return (bars + ticks).properties(width=240, height=max(60, 18 * len(rows)))


def concentration_chart(ratios: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Draw how much of all change the most changed weights hold."""
    rows = [
        {"top": at["ratio"], "held": 100 * at["concentration"]}
        for at in ratios
        if at["concentration"] is not None and at["ratio"]
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("top:Q", title="most changed weights, percent (log scale)").scale(type="log"),
        y=alt.Y("held:Q", title="percent of all relative change").scale(domain=[0, 100]),
        tooltip=_numbers("top", "held"),
    )
    line = base.mark_line(color=SERIES[0]) + base.mark_point(color=SERIES[0], opacity=1)
    return line.properties(width=WIDTH, height=HEIGHT)


def _numbers(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:Q", format=".1f") for field in fields]


def spoken(values: Mapping[str, float | None]) -> str:
    """Return numbers by name in words, for those who do not see a chart."""
    known = [f"{name}: {value:.1f}" for name, value in values.items() if value is not None]
    return "; ".join(known) + "."
