"""The sweep's curve as SVG and PNG files that load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.sweep.points import series

_AXES = {"ratio": "restored weights, percent", "of_changed": "of the changed weights, percent"}


def curve(points: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Draw scores with 95% intervals over the ratio, and over the share of changed weights.

    Args:
        points: with a score each; skipped ratios are left out.
    """
    rows = []
    for point in points:
        for name, (value, low, high) in series(point).items():
            score = {"score": 100 * value, "low": 100 * value, "high": 100 * value}
            if low is not None and high is not None:
                score |= {"low": 100 * low, "high": 100 * high}
            places = {"ratio": point["ratio"], "of_changed": point["of_changed"]}
            rows.append({"scores": name, **score, **places})
    panels = [_panel(rows, field, title) for field, title in _AXES.items()]
    return alt.hconcat(*panels).resolve_scale(y="shared")


def _panel(rows: list[dict[str, Any]], field: str, title: str) -> alt.LayerChart:
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(f"{field}:Q", title=title), color=alt.Color("scores:N", title=None)
    )
    line = base.mark_line(point=True).encode(y=alt.Y("score:Q", title="score, percent"))
    spread = base.mark_rule(opacity=0.35).encode(y="low:Q", y2="high:Q")
    return (spread + line).properties(width=300, height=260)


def save_curve(points: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `curve.svg` and `curve.png` and return the files."""
    chart = curve(points)
    written = []
    for kind in ("svg", "png"):
        path = folder / f"curve.{kind}"
        with atomic_path(path) as partial:
            chart.save(partial, format=kind, scale_factor=2 if kind == "png" else 1)
        written.append(path)
    return written
