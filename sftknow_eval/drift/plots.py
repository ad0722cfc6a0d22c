"""The change report's two plots, as SVG and PNG files that load nothing from elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

import altair as alt

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.drift.report import Report

logger = logging.getLogger(__name__)


def concentration_curve(report: Report) -> alt.TopLevelMixin:
    """Draw the share of all relative change against the share of elements that hold it."""
    points = [
        {"elements": at.ratio, "changed": at.of_changed, "share": 100 * at.concentration}
        for at in report.ratios
        if at.concentration is not None and at.ratio > 0
    ]
    rows = [
        {"percent": point[key], "share": point["share"], "of": label}
        for point in points
        for key, label in (("elements", "all weights"), ("changed", "weights that changed"))
        if point[key]
    ]
    return (
        alt.Chart(alt.Data(values=rows), title="Concentration of relative change")
        .mark_line(point=True)
        .encode(
            x=alt.X("percent:Q", title="most changed weights, percent").scale(type="log"),
            y=alt.Y("share:Q", title="of the sum of relative change, percent").scale(
                domain=[0, 100]
            ),
            color=alt.Color("of:N", title="percent of"),
        )
        .properties(width=420, height=280)
    )


def heat_map(report: Report, ratio: float) -> alt.TopLevelMixin:
    """Draw, for each layer and module, how enriched it is in restored elements.

    Source: Tables 9 and 10, laid out together.
    """
    j = [at.ratio for at in report.ratios].index(ratio)
    rows = [
        {"layer": layer, "module": module, "enrichment": share.enrichment[j]}
        for (layer, module), share in report.cells.items()
        if share.enrichment[j] is not None
    ]
    modules = sorted({module for _, module in report.cells})
    layers = sorted({layer for layer, _ in report.cells})
    base = alt.Chart(
        alt.Data(values=rows),
        title=f"Restored at {ratio:g}%: share over size (1 = as its size says)",
    ).encode(
        x=alt.X("module:N", title=None, sort=modules).axis(labelAngle=-40),
        y=alt.Y("layer:O", title="layer", sort=layers),
    )
    cells = base.mark_rect(opacity=0.75).encode(
        color=alt.Color("enrichment:Q", title="enrichment").scale(scheme="blueorange", domainMid=1),
    )
    chart = cells.properties(width=56 * len(modules), height=max(60, 20 * len(layers)))
    if len(rows) > 200:
        return chart
    numbers = base.mark_text(fontSize=9).encode(text=alt.Text("enrichment:Q", format=".2f"))
    return (chart + numbers).resolve_scale(color="independent")


def save_plots(report: Report, folder: Path, ratio: float) -> list[Path]:
    """Write `concentration` and `layers` as SVG and PNG and return the files."""
    charts = {"concentration": concentration_curve(report)}
    if report.cells:
        charts["layers"] = heat_map(report, ratio)
    written = []
    for name, chart in charts.items():
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            with atomic_path(path) as partial:
                chart.save(partial, format=kind, scale_factor=2 if kind == "png" else 1)
            written.append(path)
    return written
