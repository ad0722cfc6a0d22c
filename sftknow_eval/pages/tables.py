"""Tables as data: one description gives the HTML, the Markdown and the JSON of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tone = Literal["", "good", "bad", "muted"]
MISSING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        note: smaller, behind the text: an interval, a count.
        beside: smaller still, a value from elsewhere to compare with.
        tone: colours the text; what it means must be in the words too.
        href: where the text leads.
        sort: the number to sort by, where the text is not one.
        title: a longer reading of the text, as for a value that is missing.
    """

    text: str
    note: str = ""
    tone: Tone = ""
    href: str = ""
    sort: float | None = None
    title: str = ""
    beside: str = ""

    def plain(self) -> str:
        """Return the cell as plain text."""
        more = "; ".join(part for part in (self.note, self.beside) if part)
        return f"{self.text} ({more})" if more else self.text


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a column; numbers stand to the right."""

    label: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption.

    Attributes:
        id: unique in its page.
        rows: of as many cells as there are columns; the first is the row's head.
        groups: heads over several columns, as pairs of (label, how many columns).
        note: under the table.
        marked: rows to set off, by index.
    """

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    note: str = ""
    marked: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.id}: a row of {len(row)}, not {len(self.columns)}")

    def as_json(self) -> dict[str, Any]:
        """Return caption, heads and cells as text."""
        return {
            "caption": self.caption,
            "columns": [column.label for column in self.columns],
            "rows": [[cell.plain() for cell in row] for row in self.rows],
            "note": self.note or None,
        }

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, the caption above it."""
        heads = [_escaped(label) for label in self._flat_heads()]
        lines = [f"**{_escaped(self.caption)}**", "", _row(heads)]
        lines.append(_row(["---:" if c.numeric else "---" for c in self.columns]))
        lines += [_row([_escaped(cell.plain()) for cell in row]) for row in self.rows]
        return "\n".join([*lines, *(["", _escaped(self.note)] if self.note else [])]) + "\n"

    def _flat_heads(self) -> list[str]:
        heads = [label for label, width in self.groups for _ in range(width)]
        heads = heads or [""] * len(self.columns)
        return [
            f"{group}: {column.label}" if group else column.label
            for group, column in zip(heads, self.columns, strict=True)
        ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as percent without the sign; a dash where there is none."""
    return MISSING if value is None else f"{100 * value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def share(entry: Mapping[str, Any] | None, digits: int = 1) -> Cell:
    """Return a share with its interval: of `value`, `low` and `high`, missing where None."""
    if entry is None or entry.get("value") is None:
        return Cell(MISSING, tone="muted", title="not measured")
    low, high = entry.get("low"), entry.get("high")
    note = (
        "" if low is None or high is None else f"{percent(low, digits)} to {percent(high, digits)}"
    )
    return Cell(percent(entry["value"], digits), note, sort=entry["value"])
