"""The charts of a board, as Vega-Lite: strata, what is won and lost, restoration, training size.

They are drawn as SVG when the site is built, and again with tooltips where scripts may run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftknow_eval.leaderboard.rows import RankingTable, Row
from sftknow_eval.leaderboard.site.names import title_in
from sftknow_eval.mastery.table import N_STRATA
from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.palette import DASHES, SERIES, SHAPES, var

MAX_SERIES = 8
MAX_POINTS = 100
_DOMAINS = {"id": "in-domain (ID)", "ood": "out-of-domain (OOD)"}


def board_figures(table: RankingTable) -> list[Figure]:
    """Return the charts of one table that have something to show."""
    made = (strata(table), trade(table), restoration(table))
    return [figure for figure in made if figure is not None]


def strata(table: RankingTable) -> Figure | None:
    """Draw accuracy by stratum of the best rows and the base, ID beside OOD."""
    shown = _chosen(table)
    names = _names(table, shown)
    values = [
        {"row": name, "domain": words, "stratum": stratum, **_percent(row, f"{domain}_{stratum}")}
        for row, name in zip(shown, names, strict=True)
        for domain, words in _DOMAINS.items()
        for stratum in range(N_STRATA)
        if row.measures[f"{domain}_{stratum}"].value is not None
    ]
    if not values:
        return None
    x = {"field": "stratum", "type": "ordinal", "title": "stratum", "axis": {"labelAngle": 0}}
    y = {"field": "value", "type": "quantitative", "title": "right, percent"}
    return Figure(
        "strata",
        "Accuracy by stratum",
        f"Lines of accuracy over strata 0 to 4 for {len(shown)} rows, in-domain and out-of-domain. "
        "The table on this page holds the same numbers.",
        _lines(values, x, {**y, "scale": {"domain": [0, 100]}}, "row", names),
        f"Up to {MAX_SERIES} rows: the best, and the controls. Bars are 95% intervals.",
        broad=True,
    )


def trade(table: RankingTable) -> Figure | None:
    """Draw facts lost against accuracy; the Pareto set stands out."""
    rows = [row for row in table.rows if row.measures["lost"].value is not None]
    shown = [row for row in rows if row.pareto or row.control]
    shown += [row for row in rows if row not in shown][: max(0, MAX_POINTS - len(shown))]
    values = [
        {
            **{"row": title_in(table, row), "kind": _kind(row), "domain": words},
            "lost": _round(row.measures["lost"].value),
            "value": _round(row.measures[domain].value),
        }
        for row in sorted(shown, key=lambda row: row.pareto)  # those on top
        for domain, words in _DOMAINS.items()
        if row.measures[domain].value is not None
    ]
    if not values:
        return None
    kinds = ["in the Pareto set", "other row", "control"]
    colors = [var("series-1"), var("series-2"), var("series-8")]
    axis = {"type": "quantitative", "scale": {"zero": False, "nice": True, "padding": 12}}
    encoding = {
        "x": {"field": "value", "title": "mean of strata, percent right", **axis},
        "y": {"field": "lost", "title": "known facts lost, percent", **axis},
        "color": _named("kind", kinds, colors),
        "shape": _named("kind", kinds, SHAPES[:3]),
        "tooltip": _tooltip("row", "value", "lost"),
    }
    mark = {"type": "point", "size": 85, "opacity": 0.85}
    spec = _beside(values, {"mark": mark, "encoding": encoding})
    return Figure(
        "trade",
        "What is right, and what was lost",
        "Points for rows: mean of strata to the right, facts lost upwards. Lower right is better.",
        {**spec, "resolve": {"scale": {"x": "independent"}}},
        "Lower right is better. No row is at least as good as one of the Pareto set in ID, OOD and "
        f"facts lost, and better in one. At most {MAX_POINTS} rows are drawn.",
        broad=True,
    )


def restoration(table: RankingTable) -> Figure | None:
    """Draw the means over the share of weights restored: the sweeps that rows declare."""
    values = list(_curves(table))
    names = list(dict.fromkeys(str(value["row"]) for value in values))[:MAX_SERIES]
    if not names:
        return None
    values = [value for value in values if value["row"] in names]
    x = {"field": "share", "type": "quantitative", "title": "weights restored, percent"}
    y = {"field": "value", "type": "quantitative", "title": "mean of strata, percent right"}
    return Figure(
        "restoration",
        "Restoring weights to the base",
        "Lines of the mean of strata over the share of weights that went back to the base.",
        _lines(values, x, {**y, "scale": {"zero": False}}, "row", names),
        "The sweeps that rows declare, as the mean of their seeds; the row's own share was chosen "
        "on other facts than these. Restoring the same share at random is the control.",
        broad=True,
    )


def over_n(tables: Sequence[RankingTable]) -> Figure | None:
    """Draw the means over the number of training facts, over the tables of one base."""
    values = [
        {
            **{"row": row.title, "n": row.entry.n, "domain": words},
            "line": _line(row),
            **_percent(row, domain),
        }
        for table in tables
        for row in table.rows
        if row.entry and row.entry.n is not None and not row.control
        for domain, words in _DOMAINS.items()
        if row.measures[domain].value is not None
    ]
    sizes: dict[str, set[Any]] = {}
    for value in values:
        sizes.setdefault(str(value["line"]), set()).add(value["n"])
    names = [line for line, found in sorted(sizes.items()) if len(found) > 1][:MAX_SERIES]
    if not names:
        return None
    values = [value for value in values if value["line"] in names]
    x = {
        "field": "n",
        "type": "quantitative",
        "title": "training facts",
        "scale": {"type": "log", "nice": False},
        "axis": {
            "values": sorted(set().union(*(sizes[name] for name in names))),
            "labelOverlap": True,
        },
    }
    y = {"field": "value", "type": "quantitative", "title": "mean of strata, percent right"}
    return Figure(
        "over-n",
        "Accuracy over the number of training facts",
        "Lines of the mean of strata over the number of training facts, one for each strategy and "
        "stratum that was submitted with more than one number.",
        _lines(values, x, {**y, "scale": {"zero": False}}, "line", names),
        "Over all boards of this base. Bars are 95% intervals.",
        broad=True,
    )


def _lines(
    values: Sequence[Mapping[str, Any]],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    field: str,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return lines with points and 95% intervals, a domain beside the other."""
    shown = (field, str(x["field"]), "value", "low", "high")
    between = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    unit = {
        "encoding": {"x": dict(x), "color": _named(field, names, SERIES)},
        "layer": [
            {"mark": {"type": "rule", "opacity": 0.35}, "encoding": between},
            {"mark": "line", "encoding": {"y": y, "strokeDash": _named(field, names, DASHES)}},
            {
                "mark": "point",
                "encoding": {
                    "y": y,
                    "shape": _named(field, names, SHAPES),
                    "tooltip": _tooltip(*shown),
                },
            },
        ],
    }
    return _beside(values, unit)


def _beside(values: Sequence[Mapping[str, Any]], unit: Mapping[str, Any]) -> dict[str, Any]:
    column = {"field": "domain", "type": "nominal", "title": None}
    size = {"width": 236, "height": 230}
    return {"data": {"values": values}, "facet": {"column": column}, "spec": {**size, **unit}}


def _curves(table: RankingTable) -> Iterator[dict[str, Any]]:
    drawn = set()
    for row, name in zip(table.rows, _names(table, table.rows), strict=True):
        found: dict[tuple[str, float], list[float]] = {}
        for run in row.manifest.seeds if row.entry and row.entry.swept and row.manifest else ():
            for point in run.curve:
                for domain, value in (("id", point.id), ("ood", point.ood)):
                    if value is not None:
                        found.setdefault((domain, point.ratio), []).append(value)
        means = tuple((key, _round(sum(each) / len(each))) for key, each in sorted(found.items()))
        # Rows made from one fine-tune declare the same sweep.
        if means not in drawn:
            drawn.add(means)
            for (domain, ratio), value in means:
                yield {"row": name, "domain": _DOMAINS[domain], "share": ratio, "value": value}


def _chosen(table: RankingTable) -> list[Row]:
    controls = [row for row in table.rows if row.control in ("base", "random_restoration")][:3]
    others = [row for row in table.rows if not row.control]
    return [*others[: MAX_SERIES - len(controls)], *controls]


def _names(table: RankingTable, rows: Sequence[Row]) -> list[str]:
    """Return titles, made different where two rows share one."""
    titles = [title_in(table, row) for row in rows]
    times = Counter(titles)
    return [
        title if times[title] == 1 else f"{title} ({row.id.rsplit('/', 1)[-1]})"
        for row, title in zip(rows, titles, strict=True)
    ]


def _kind(row: Row) -> str:
    if row.control:
        return "control"
    return "in the Pareto set" if row.pareto else "other row"


def _line(row: Row) -> str:
    assert row.entry is not None
    stratum = row.entry.stratum
    return f"{row.entry.strategy}, {'all strata' if stratum is None else f'stratum {stratum}'}"


def _percent(row: Row, key: str) -> dict[str, float | None]:
    found = row.measures[key]
    return {name: _round(getattr(found, name)) for name in ("value", "low", "high")}


def _round(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _named(field: str, domain: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return an encoding of names by colours, shapes or dashes, all in one legend."""
    chosen = [values[i % len(values)] for i in range(len(domain))]
    scale = {"domain": list(domain), "range": chosen}
    legend = {"orient": "bottom", "columns": 2, "symbolLimit": 0, "columnPadding": 20}
    return {"field": field, "type": "nominal", "title": None, "scale": scale, "legend": legend}


def _tooltip(*fields: str) -> list[dict[str, Any]]:
    words = ("row", "line", "stratum")
    return [
        {"field": field, "type": "nominal" if field in words else "quantitative"}
        for field in fields
    ]
