"""What a board is made of: rows with their numbers, tables of comparable rows, the whole board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.manifest import Control, Manifest

Status = Literal["self_reported", "recomputed", "reproduced", "withdrawn"]
RowControl = Control | Literal["base", "base_again"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a row, with its 95% interval.

    Attributes:
        value: mean over the seeds that have it; None where none has.
        low, high: the interval; None with fewer than two seeds and no sampling error.
        seeds: the value of each seed, in the order of the row's seeds.
        sd: standard deviation between seeds; None with fewer than two.
        method: how the interval was made, in a few words.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float | None, ...] = ()
    sd: float | None = None
    method: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that readers of a row should know; it does not change its status.

    Attributes:
        kind: such as `contamination-overlap`, `contamination-stratum-0`, `same-outputs`.
        text: one plain sentence, escaped by whoever shows it.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a row's files hold.

    Attributes:
        asked: positions in the base's store of the facts that were asked; int (facts).
        correct: verdicts on them; bool (seeds, facts). Both empty where there is no evidence.
        restored: for each seed, elements restored and of the region; None without a recipe.
        read_manifest: gives the manifest; None for the board's own controls.
    """

    asked: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    correct: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    restored: tuple[tuple[int, int] | None, ...] = ()
    read_manifest: Callable[[], Manifest | None] = lambda: None

    @property
    def manifest(self) -> Manifest | None:
        """The manifest as submitted; None for the board's own controls."""
        return self.read_manifest()


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row of a board.

    Attributes:
        id: `version/base/strategy/run`, as in its path; for the board's own controls
            `version/base/base` and `version/base/base_again`.
        folder: of the submission; None for the board's own controls.
        entry: what it is listed by; None for the board's own controls.
        contents: gives what its files hold; where a build before knew them they are read for the
            first time when they are asked for.
        title: to show; plain text.
        control: what the row is a control for, if it is one.
        measures: by the keys of `columns.COLUMNS`; every key is there.
        flags: what readers should know.
        not_ranked: why the row has no tier; empty for ranked rows.
        tier: 1 is best, by the ID mean; rows of one tier were not told apart from its leader.
        tier_ood: the same for the OOD mean.
        pareto: no other ranked row is as good in all of (ID, OOD, lost) and better in one.
        base_difference: ID and OOD mean minus the base's, each with its interval.
        mark: digest of the submission, of its base's store and of the source that judged it;
            empty where builds keep nothing.
    """

    id: str
    folder: Path | None
    entry: Entry | None
    contents: Callable[[], Contents]
    title: str
    status: Status
    control: RowControl | None
    measures: Mapping[str, Measure]
    flags: tuple[Flag, ...] = ()
    not_ranked: tuple[str, ...] = ()
    tier: int | None = None
    tier_ood: int | None = None
    pareto: bool = False
    base_difference: Mapping[str, Measure] = field(default_factory=dict)
    mark: str = ""

    @property
    def ranked(self) -> bool:
        """Whether the row has a tier."""
        return self.tier is not None

    @property
    def manifest(self) -> Manifest | None:
        """The manifest as submitted; None for the board's own controls."""
        return self.contents().manifest

    @property
    def asked(self) -> np.ndarray:
        """Positions in the base's store of the facts that were asked; int (facts)."""
        return self.contents().asked

    @property
    def correct(self) -> np.ndarray:
        """Verdicts on the facts asked; bool (seeds, facts)."""
        return self.contents().correct


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired test of two rows of a table on one column.

    Attributes:
        column: `id` or `ood`.
        difference: first minus second, with its 95% interval.
        p: two-sided; `p_holm` after Holm over the table's pairs on this column.
    """

    first: str
    second: str
    column: str
    difference: Measure
    p: float
    p_holm: float

    @property
    def told_apart(self) -> bool:
        """Whether the two rows differ at the 5% level after Holm."""
        return self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class RankingTable:
    """Rows that may be compared: one benchmark version, one base, one data regime.

    Attributes:
        version: of the benchmark.
        base: id of the base.
        regime: key such as `s0-n240`, `all-n1920`, `s2-all` or `open`.
        regime_label: the same in words.
        rows: ranked rows by tier, then rows that are not ranked, then controls.
        missing_controls: controls that nobody has submitted for this table yet.
    """

    version: str
    base: str
    regime: str
    regime_label: str
    rows: tuple[Row, ...]
    missing_controls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A submission that is not on the board, and why."""

    path: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """An entry of the public log of withdrawn rows."""

    row: str
    date: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class Board:
    """Everything there is to show.

    Attributes:
        root: the leaderboard's folder.
        tables: by version, base and regime.
        bases: the stores of the bases, by base id.
        refused: submissions that did not pass verification.
        withdrawn: the public log; withdrawn rows stand in their tables with that status.
    """

    root: Path
    tables: tuple[RankingTable, ...]
    bases: Mapping[str, BaseStore]
    refused: tuple[Refused, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()

    def rows(self) -> dict[str, Row]:
        """Return every row once, by id."""
        return {row.id: row for table in self.tables for row in table.rows}
