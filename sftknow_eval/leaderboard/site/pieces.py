"""What a row gives to the files that show many: its lines of CSV and JSON, its cells in a table.

They follow from the submission and its status alone, so those of unchanged rows are kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sftknow_eval.leaderboard.kept_lines import KeptLines
from sftknow_eval.leaderboard.rows import Row
from sftknow_eval.leaderboard.site import board_table, exports

_NAME = "pieces.txt"
_BETWEEN = "\x1f"
_BREAK = re.compile(r"[\x1f\r\n]")


@dataclass(frozen=True, slots=True)
class Pieces:
    """Texts made of a row.

    Attributes:
        key: recognises all that the row's own files and these texts are made of.
        text: the row by itself as JSON (`exports.row_text`).
        csv: its last columns (`exports.csv_tail`).
        record: of Every Eval Ever; empty for rows that nobody submitted.
        cells: of its board's table, as HTML.
    """

    key: str
    text: str
    csv: str
    record: str
    cells: str


class RowPieces:
    """Makes the pieces of rows, or takes them from the build before.

    Args:
        folder: of what builds keep.
        made_by: digest of the source and the options that pages are made with.
        fresh: take nothing from the build before.
    """

    def __init__(self, folder: Path, made_by: str, fresh: bool) -> None:
        self._kept = KeptLines(folder / _NAME, made_by, fresh=fresh)
        self._made_by = made_by

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._kept.write()

    def of(self, row: Row, context: Sequence[str]) -> Pieces:
        """Return the pieces of a row.

        Args:
            row: of a board.
            context: what else its own files are made of: its base, the words for its regime.
        """
        if not row.mark:
            made = _made(row)
            return Pieces(self._key(made[0], *context), *made)
        flags = (part for flag in row.flags for part in (flag.kind, flag.text))
        key = self._key(row.mark, row.status, "\x1d".join(row.not_ranked), *flags, "\x1e", *context)
        held = self._kept.text(key)
        made = held.split(_BETWEEN) if held is not None else _made(row)
        if held is None and not any(_BREAK.search(text) for text in made):
            self._kept.put_text(key, _BETWEEN.join(made))
        return Pieces(key, *made)

    def _key(self, *parts: str) -> str:
        # The row's place is left out: it changes with other rows, and stands on the boards.
        return hashlib.sha256("\x1f".join((self._made_by, *parts)).encode()).hexdigest()


def _made(row: Row) -> list[str]:
    record = exports.record_text(row) if row.entry else ""
    return [exports.row_text(row), exports.csv_tail(row), record, board_table.cells(row)]
