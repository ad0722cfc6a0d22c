"""A table of comparable rows, as its page shows it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sftknow_eval.leaderboard.columns import COLUMNS, Column
from sftknow_eval.leaderboard.rows import RankingTable, Row
from sftknow_eval.leaderboard.site.names import (
    CONTROL_WORDS,
    STATUS_WORDS,
    interval,
    number,
    row_page,
    title_in,
)
from sftknow_eval.pages.tables import MISSING, Cell, Table
from sftknow_eval.pages.tables import Column as Head

_GROUPS = (
    ("Means of strata", ("id", "ood")),
    ("Known facts", ("lost", "gained")),
    ("In-domain, by stratum", tuple(f"id_{i}" for i in range(5))),
    ("Out-of-domain, by stratum", tuple(f"ood_{i}" for i in range(5))),
    ("Change and cost", ("token_drift", "restored_share", "trained_parameters", "gpu_hours")),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Columns under one head.

    Attributes:
        strata: whether these are accuracies by stratum, which narrow screens leave out at first.
    """

    label: str
    columns: tuple[Column, ...]
    strata: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        place: tier, or a dash.
        cells: its values, as `cells` makes them.
        notes: words under the title: what the row is a control for, why it is not ranked.
        tone: `control`, `unranked` or empty.
    """

    row: Row
    title: str
    href: str
    place: str
    status: str
    cells: Markup
    notes: tuple[str, ...]
    tone: str


def groups() -> tuple[Group, ...]:
    """Return all columns, grouped; every column of the board stands in one group."""
    by_key = {column.key: column for column in COLUMNS}
    made = tuple(
        Group(label, tuple(by_key.pop(key) for key in keys), "_0" in keys[0])
        for label, keys in _GROUPS
    )
    return (*made, *([Group("Further", tuple(by_key.values()), False)] if by_key else []))


def head_label(column: Column, group: Group) -> str:
    """Return the head of a column, which need not repeat its group's."""
    return column.label.rsplit(" ", 1)[-1] if group.strata else column.label


def lines(table: RankingTable, cells_of: Mapping[str, str]) -> list[Line]:
    """Return the rows of a table in the order of the board, with the cells of each by its id."""
    return [_line(table, row, cells_of[row.id]) for row in table.rows]


def cells(row: Row) -> str:
    """Return a row's values with their intervals as HTML, in the order of the groups' columns."""
    # Digits of ours only; a board has tens of thousands of cells.
    return "".join(f"{head}{_cell(key, row)}" for key, head in _heads())


@functools.cache
def _heads() -> list[tuple[str, str]]:
    return [
        (column.key, '<td class="s">' if group.strata else "<td>")
        for group in groups()
        for column in group.columns
    ]


def short_table(table: RankingTable, limit: int, root: str = "") -> Table:
    """Return the first rows of a table and its controls, with the columns it is ranked by."""
    rows = [row for row in table.rows if not row.control and row.status != "withdrawn"][:limit]
    rows += [row for row in table.rows if row.control]
    keys = ("id", "ood", "lost", "gained")
    heads = [Head("Row", False), Head("Tier", False)]
    heads += [Head(column.label) for column in COLUMNS if column.key in keys]
    return Table(
        f"top-{table.version}-{table.base}-{table.regime}".replace(".", "-"),
        "Percent, with 95% intervals",
        [*heads, Head("Status", False)],
        [_short(table, row, keys, root) for row in rows],
    )


def _short(table: RankingTable, row: Row, keys: Sequence[str], root: str) -> list[Cell]:
    found = [Cell(title_in(table, row), href=root + row_page(row)), Cell(_place(row))]
    found += [Cell(number(key, row.measures[key].value), _between(key, row)) for key in keys]
    return [*found, Cell("control" if row.control else STATUS_WORDS[row.status])]


def _line(table: RankingTable, row: Row, made: str) -> Line:
    notes = [f"Control: {CONTROL_WORDS[row.control]}."] if row.control else []
    if row.not_ranked and not row.control:
        notes.append(f"Not ranked: {'; '.join(row.not_ranked)}.")
    notes += [f"Flag: {flag.text}" for flag in row.flags]
    return Line(
        row=row,
        title=title_in(table, row),
        href=row_page(row),
        place=_place(row),
        status=STATUS_WORDS[row.status],
        cells=Markup(made),  # as `cells` makes them
        notes=tuple(notes),
        tone="control" if row.control else "" if row.ranked else "unranked",
    )


def _cell(key: str, row: Row) -> str:
    between = _between(key, row)
    value = number(key, row.measures[key].value)
    return f"{value}<small>{between}</small>" if between else value


def _between(key: str, row: Row) -> str:
    # A table of this width has no room for the word.
    return interval(key, row.measures[key]).replace(" to ", "\N{EN DASH}")


def _place(row: Row) -> str:
    return MISSING if row.tier is None else str(row.tier)
