"""Charts that read without JavaScript: Vega-Lite drawn once as SVG, and kept for tooltips.

Colours in a chart are CSS variables of the theme (`palette.var`), which the browser resolves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from sftknow_eval.pages.drawings import drawn
from sftknow_eval.pages.palette import SERIES, var

_FONT = "system-ui, sans-serif"
_ROOT = re.compile(r"<svg\b[^>]*>")
_SIZE = re.compile(r'\b(width|height|viewBox)="([^"]*)"')


def config() -> dict[str, Any]:
    """Return the look of all charts."""
    axis = {
        **{"labelColor": var("muted"), "titleColor": var("ink"), "tickColor": var("edge")},
        **{"domainColor": var("edge"), "gridColor": var("line"), "titleFontWeight": 500},
        **{"labelFontSize": 11, "titleFontSize": 12, "titlePadding": 8, "labelLimit": 220},
    }
    legend = {
        **{"labelColor": var("ink"), "titleColor": var("ink"), "titleFontWeight": 500},
        **{
            "labelFontSize": 12,
            "titleFontSize": 12,
            "symbolSize": 80,
            "symbolOpacity": 1,
            "labelLimit": 260,
        },
    }
    return {
        "aria": False,
        "background": None,
        "font": _FONT,
        "axis": axis,
        "legend": legend,
        "header": {"labelColor": var("ink"), "titleColor": var("ink"), "labelFontSize": 12},
        "title": {"color": var("ink"), "fontSize": 13, "fontWeight": 600, "anchor": "start"},
        "text": {"color": var("ink")},
        "view": {"stroke": None},
        "range": {"category": list(SERIES)},
        "mark": {"color": SERIES[0]},
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 55},
        "rule": {"color": var("edge")},
    }


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its words.

    Attributes:
        id: unique in its page.
        title: names it.
        text: says what is seen; also for those who do not see it.
        chart: an Altair chart or a Vega-Lite specification.
        caption: further lines for the reader of the page: how to read it.
        broad: wider than about 420 pixels, so that a phone scrolls it and does not shrink it.
    """

    id: str
    title: str
    text: str
    chart: Any
    caption: str = ""
    broad: bool = False

    @property
    def svg(self) -> Markup:
        """Return the drawing."""
        return chart_svg(self.chart, self.id, self.title, self.text)

    @property
    def spec(self) -> Markup:
        """Return the specification as JSON that can stand in a script element."""
        text = json.dumps(_spec(self.chart), sort_keys=True, separators=(",", ":"))
        for char in "<>&\u2028\u2029":
            text = text.replace(char, f"\\u{ord(char):04x}")
        return Markup(text)  # escaped just above


def _spec(chart: Any) -> dict[str, Any]:
    found = dict(chart) if isinstance(chart, Mapping) else dict(chart.to_dict())
    return {**found, "config": config()}


def chart_svg(chart: Any, name: str, title: str, text: str = "") -> Markup:
    """Return a chart as inline SVG that follows the page's theme.

    Args:
        chart: an Altair chart or a Vega-Lite specification with its data.
        name: makes ids in the drawing unique in the page.
        title: for screen readers, as its name.
        text: for screen readers, as its description.
    """
    return _named(drawn(json.dumps(_spec(chart), sort_keys=True)), name, title, text)


def _named(svg: str, name: str, title: str, text: str) -> Markup:
    root = _ROOT.search(svg)
    assert root is not None, "vl-convert draws one svg element"
    size = dict(_SIZE.findall(root.group()))
    body = re.sub(r'\bid="', f'id="{name}-', svg[root.end() :])
    body = body.replace("url(#", f"url(#{name}-")
    words = f'<title id="{name}-title">{escape(title)}</title>'
    words += f'<desc id="{name}-text">{escape(text)}</desc>' if text else ""
    label = f"{name}-title {name}-text" if text else f"{name}-title"
    return Markup(  # Vega escapes texts in a drawing, the rest is escaped above
        f'<svg class="drawing" width="{size["width"]}" height="{size["height"]}" '
        f'viewBox="{size["viewBox"]}" role="img" aria-labelledby="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{words}{body}'
    )
