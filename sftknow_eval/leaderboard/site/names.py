"""Where things lie in a site, and how numbers are written."""

from __future__ import annotations

from sftknow_eval.leaderboard.columns import BY_KEY
from sftknow_eval.leaderboard.rows import Measure, RankingTable, Row
from sftknow_eval.pages.tables import MISSING

STATUS_WORDS = {
    "self_reported": "self-reported",
    "recomputed": "recomputed",
    "reproduced": "reproduced",
    "withdrawn": "withdrawn",
}
CONTROL_WORDS = {
    "base": "the base model",
    "base_again": "the base again: what chance alone does",
    "random_restoration": "the same share of weights restored at random",
}


def table_slug(table: RankingTable) -> str:
    """Return a name for a table that is unique in the site and safe in paths.

    `~` stands in no part of it, so that no two tables share a name.
    """
    return f"{table.version}~{table.base}~{table.regime}"


def row_slug(row_id: str) -> str:
    """Return a name for a row that is unique in the site and safe in paths."""
    return row_id.replace("/", "~")


def board_page(table: RankingTable) -> str:
    """Return the place of a table's page."""
    return f"boards/{table_slug(table)}.html"


def exports_of(table: RankingTable) -> tuple[str, str]:
    """Return the places of a table's CSV and JSON."""
    slug = table_slug(table)
    return f"exports/{slug}.csv", f"exports/{slug}.json"


def row_page(row: Row) -> str:
    """Return the place of a row's page."""
    return f"rows/{row_slug(row.id)}/index.html"


def outcomes_file(row_id: str) -> str:
    """Return the place of a row's outcomes, which the compare page loads as a script."""
    return f"rows/{row_slug(row_id)}/outcomes.js"


def facts_file(version: str, base: str) -> str:
    """Return the place of a base's facts, which the compare page loads as a script."""
    return f"data/{version}~{base}.js"


def title_in(table: RankingTable, row: Row) -> str:
    """Return a row's title without what all rows of its table share."""
    return row.title.removesuffix(f", {table.regime_label}")


def number(key: str, value: float | None) -> str:
    """Return a column's value as it is shown: shares in percent, large counts in short."""
    if value is None:
        return MISSING
    unit = BY_KEY[key].unit
    if unit == "share":
        return f"{100 * value:.1f}"
    if unit == "nats":
        return f"{value:.3f}"
    if unit == "count":
        return _short(value)
    return f"{value:.3g}"


def interval(key: str, measure: Measure) -> str:
    """Return a measure's interval as it is shown, or an empty text."""
    if measure.low is None or measure.high is None:
        return ""
    return f"{number(key, measure.low)} to {number(key, measure.high)}"


def _short(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"
