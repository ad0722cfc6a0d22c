"""Charts as SVG; the drawings are vl-convert's own."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import altair as alt

from sftknow_eval.pages.charts import Figure, chart_svg
from sftknow_eval.pages.palette import SERIES

HOSTILE = "</script><script>alert(1)</script>\u2028"


def _chart(name: str = "a") -> alt.TopLevelMixin:
    rows = [{"x": 1, "y": 2, "s": name}, {"x": 2, "y": 3, "s": name}]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(clip=True)
        .encode(x="x:Q", y="y:Q", color="s:N")
        .properties(width=200, height=100)
    )


def test_a_drawing_is_well_formed_and_names_itself() -> None:
    root = ElementTree.fromstring(str(chart_svg(_chart(), "c1", "Title", "What is seen")))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "c1-title c1-text"
    texts = {child.get("id"): child.text for child in root if child.get("id")}
    assert texts["c1-title"] == "Title"
    assert texts["c1-text"] == "What is seen"


def test_colours_are_left_to_the_theme() -> None:
    svg = str(chart_svg(_chart(), "c1", "T"))
    assert f'stroke="{SERIES[0]}"' in svg
    assert "var(--muted)" in svg
    assert "#4c78a8" not in svg  # Vega's own first colour


def test_two_drawings_in_a_page_share_no_id() -> None:
    def ids(svg: str) -> set[str]:
        found = {element.get("id") for element in ElementTree.fromstring(svg).iter()}
        return {name for name in found if name}

    one, other = (str(chart_svg(_chart(), name, "T", "t")) for name in ("c1", "c2"))
    assert ids(one)
    assert not ids(one) & ids(other)
    assert all(f"url(#{name}" in one for name in ids(one) if "clip" in name)


def test_hostile_texts_stay_texts() -> None:
    root = ElementTree.fromstring(
        str(chart_svg(_chart(HOSTILE.rstrip("\u2028")), "c1", HOSTILE, HOSTILE))
    )
    assert not [element for element in root.iter() if "script" in element.tag]
    figure = Figure("f", HOSTILE, HOSTILE, _chart(HOSTILE))
    assert "<" not in figure.spec
    assert json.loads(str(figure.spec))["data"]["values"][0]["s"] == HOSTILE
