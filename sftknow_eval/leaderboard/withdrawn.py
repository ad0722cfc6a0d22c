"""The public log of withdrawn rows: `withdrawn.jsonl` for programs, `withdrawn.md` for people.

A withdrawn row keeps its files and its place on the board; it has the status `withdrawn` and no
tier. Entries are only ever added.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.bounded_json import parse_bounded
from sftknow_eval.leaderboard.contained import read_bytes
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.rows import Withdrawn
from sftknow_eval.leaderboard.texts import Line, Passage

LOG_NAME = "withdrawn.jsonl"
PAGE_NAME = "withdrawn.md"
_LIMIT = 4 << 20
_HEAD = """# Withdrawn rows

Rows that no longer count, with the reason. Nothing is deleted: their files stay where they are.
`sftknow board withdraw` adds a row here.

| row | date | reason | by |
|---|---|---|---|
"""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    row: Annotated[str, Field(pattern=r"^[a-z0-9._-]+(?:/[a-z0-9._-]+){3}$")]
    date: datetime.date
    reason: Annotated[Passage, Field(min_length=1)]
    by: Line


def read_withdrawn(root: Path) -> tuple[Withdrawn, ...]:
    """Return the log's entries, oldest first; none where there is no log.

    Raises:
        SubmissionError: the log is malformed.
    """
    path = root / LOG_NAME
    if not path.exists():
        return ()
    found = []
    for number, line in enumerate(read_bytes(path, root, _LIMIT).splitlines(), 1):
        name = f"{LOG_NAME}, line {number}"
        try:
            entry = _Entry.model_validate(parse_bounded(line, name))
        except ValidationError as error:
            raise SubmissionError(faults_of(error, name)) from error
        found.append(Withdrawn(entry.row, entry.date.isoformat(), entry.reason, entry.by))
    return tuple(found)


def withdraw(root: Path, row: str, reason: str, by: str, date: datetime.date) -> None:
    """Add a row to both logs.

    Raises:
        SubmissionError: there is no such row, it was withdrawn before, or a text is refused.
    """
    if not (root / "submissions" / row).is_dir():
        raise SubmissionError(f"There is no row '{row}' below {root / 'submissions'}.")
    before = read_withdrawn(root)
    if any(entry.row == row for entry in before):
        raise SubmissionError(f"The row '{row}' is withdrawn already.")
    try:
        entry = _Entry(row=row, date=date, reason=reason, by=by)
    except ValidationError as error:
        raise SubmissionError(faults_of(error, "The withdrawal")) from error
    added = Withdrawn(entry.row, entry.date.isoformat(), entry.reason, entry.by)
    entries = [*before, added]
    lines = [
        json.dumps({"row": e.row, "date": e.date, "reason": e.reason, "by": e.by}) for e in entries
    ]
    with atomic_path(root / LOG_NAME) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_path(root / PAGE_NAME) as partial:
        partial.write_text(_HEAD + "".join(map(_table_line, entries)), encoding="utf-8")


def _table_line(entry: Withdrawn) -> str:
    cells = (entry.row, entry.date, entry.reason, entry.by)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"
