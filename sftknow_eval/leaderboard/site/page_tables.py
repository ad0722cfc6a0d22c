"""The smaller tables of the site's pages: comparisons, refused and withdrawn rows, downloads."""

from __future__ import annotations

from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.rows import Board
from sftknow_eval.leaderboard.site.names import board_page, exports_of
from sftknow_eval.leaderboard.site.outcomes import RowFacts
from sftknow_eval.leaderboard.site.pairs import Pair, counts, differences
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table


def counts_table(first: RowFacts, second: RowFacts, store: BaseStore) -> Table:
    """Return the counts of two rows by who was right."""
    heads = [Column("Facts", False), Column("Both right"), Column("Only the first")]
    heads += [Column("Only the second"), Column("Neither"), Column("p (McNemar, exact)")]
    cells = [
        [
            Cell(found.label),
            *(Cell(str(n)) for n in (found.both, found.first, found.second, found.neither)),
            Cell(_p(found.p)),
        ]
        for found in counts(first, second, store)
    ]
    return Table("sums", "Facts by who was right", heads, cells)


def _p(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def differences_table(pair: Pair, first: RowFacts, second: RowFacts, store: BaseStore) -> Table:
    """Return the facts on which two rows differ, with both answers."""
    found = differences(first, second, store)
    heads = [Column(label, False) for label in ("Question", "Accepted answer", "Stratum")]
    heads += [Column(pair.first.title, False), Column(pair.second.title, False)]
    cells = [
        [
            Cell(d.question, d.domain),
            Cell(d.answer),
            Cell(str(d.stratum)),
            Cell(d.first or "(nothing)", f"{d.first_hits} seeds right"),
            Cell(d.second or "(nothing)", f"{d.second_hits} seeds right"),
        ]
        for d in found
    ]
    caption = f"Facts on which they differ ({len(found)} shown), those the base knew best first"
    return Table("facts", caption, heads, cells)


def refused_table(board: Board) -> Table | None:
    """Return the refused submissions with their reasons; None without any."""
    if not board.refused:
        return None
    heads = [Column("Submission", False), Column("Why it is not shown", False)]
    cells = [[Cell(r.path), Cell("; ".join(r.reasons))] for r in board.refused]
    return Table("refused", "Submissions that are refused", heads, cells)


def withdrawn_table(board: Board) -> Table | None:
    """Return the public log of withdrawn rows; None while it is empty."""
    if not board.withdrawn:
        return None
    heads = [Column(label, False) for label in ("Row", "Date", "Reason", "By")]
    cells = [[Cell(w.row), Cell(w.date), Cell(w.reason), Cell(w.by)] for w in board.withdrawn]
    return Table("withdrawn", "The log of withdrawn rows", heads, cells)


def download_table(board: Board) -> Table:
    """Return the boards' files."""
    heads = [Column(label, False) for label in ("Board", "CSV", "JSON")]
    cells = []
    for table in board.tables:
        label = f"{table.base}, {table.regime_label}"
        csv, data = exports_of(table)
        cells.append(
            [Cell(label, href=board_page(table)), Cell("CSV", href=csv), Cell("JSON", href=data)]
        )
    return Table("files", "One board at a time", heads, cells)
