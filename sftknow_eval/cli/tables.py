"""The one look of all tables: a title, a line under the head, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table


def simple_table(title: str, columns: Sequence[str], *, left: int = 1) -> Table:
    """Return an empty table.

    Args:
        title: printed above it.
        columns: heads of the columns.
        left: how many columns, from the first, hold words and not numbers.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right")
    return table
