"""From verified submissions to boards: tables of comparable rows, tiers and the Pareto set.

Rows are compared within one benchmark version, one base and one data regime only. The order is
that of tiers by the ID mean; a second tier goes by the OOD mean. No number mixes the two.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sftknow_eval.errors import SubmissionError
from sftknow_eval.evaluation.statistics.tiers import Side, differences, tiers
from sftknow_eval.leaderboard.base_rows import base_rows
from sftknow_eval.leaderboard.columns import RANKED
from sftknow_eval.leaderboard.contamination import StratumZero, stratum_zero_flag
from sftknow_eval.leaderboard.measures import Mean
from sftknow_eval.leaderboard.places import submission_folders
from sftknow_eval.leaderboard.row_making import RowMaker
from sftknow_eval.leaderboard.rows import (
    Board,
    RankingTable,
    Refused,
    Row,
)
from sftknow_eval.leaderboard.verdict_cache import VerdictCache
from sftknow_eval.leaderboard.verify import Verifier, with_cross_faults
from sftknow_eval.leaderboard.withdrawn import read_withdrawn
from sftknow_eval.mastery.facts import DOMAINS


def board(root: Path, cache: Path | None = None, *, fresh: bool = False) -> Board:
    """Return the board of a leaderboard's folder, everything verified.

    Args:
        root: with `submissions/` and `mastery/`.
        cache: a folder for verdicts on unchanged submissions, which are not judged again.
        fresh: judge all again, and keep those verdicts.

    Raises:
        SubmissionError: the log of withdrawn rows is malformed.
    """
    root = root.resolve()
    verifier = Verifier(root)
    with VerdictCache(cache, verifier, fresh=fresh) as kept:
        alone = {folder: kept.verdict(folder) for folder in submission_folders(root, root)}
        verdicts = with_cross_faults(alone, set())
        withdrawn = read_withdrawn(root)
        rows = RowMaker(root, verifier, kept, {entry.row: entry for entry in withdrawn})
        good = [(folder, verdict) for folder, verdict in verdicts.items() if not verdict.reasons]
        made = [rows.row(folder, verdict) for folder, verdict in good]
        flagged = _with_zero_flags(made, verifier)
        bases = {name: verifier.reference(name).store for name in sorted({_base(r) for r in made})}
        controls = {name: base_rows(store) for name, store in bases.items()}
        tables = _tables(flagged, rows, controls)
    refused = tuple(
        Refused(verdict.path, verdict.reasons) for verdict in verdicts.values() if verdict.reasons
    )
    return Board(root, tables, bases, refused, withdrawn)


def _base(row: Row) -> str:
    return row.id.split("/")[1]


def _with_zero_flags(rows: Sequence[Row], verifier: Verifier) -> list[Row]:
    """Return the rows, flagged where they know more of stratum 0 than can be explained."""
    shares: dict[str, list[list[float]]] = defaultdict(list)
    for row in rows:
        zero = [row.measures[f"{domain}_0"].value or 0.0 for domain in ("id", "ood")]
        shares[_base(row)].append(zero)
    explained = {base: StratumZero.of(verifier.reference(base).store) for base in shares}
    of_base = {base: np.array(found) for base, found in shares.items()}
    places: Counter[str] = Counter()
    found = []
    for row in rows:
        base = _base(row)
        right = _right_of_stratum_zero(row, explained[base].n)
        flag = stratum_zero_flag(right, explained[base], of_base[base], places[base])
        places[base] += 1
        found.append(dataclasses.replace(row, flags=(*row.flags, flag)) if flag else row)
    return found


def _right_of_stratum_zero(row: Row, n: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the right facts of stratum 0, of `n` for ID and OOD, by seed; none where reported."""
    if row.entry is None or not row.entry.evident:
        return []
    first, second = (
        [round((share or 0.0) * total) for share in row.measures[f"{domain}_0"].seeds]
        for domain, total in zip(DOMAINS, n, strict=True)
    )
    return list(itertools.zip_longest(first, second, fillvalue=0))


def _tables(
    rows: Sequence[Row], makes: RowMaker, controls: Mapping[str, Sequence[Row]]
) -> tuple[RankingTable, ...]:
    grouped: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        assert row.entry is not None
        grouped[row.entry.benchmark, row.entry.base, row.entry.regime].append(row)
    return tuple(
        _table(key, members, makes, controls[key[1]]) for key, members in sorted(grouped.items())
    )


def _table(
    key: tuple[str, str, str], rows: list[Row], makes: RowMaker, controls: Sequence[Row]
) -> RankingTable:
    version, base, regime = key
    assert rows[0].entry is not None
    ranked = [row for row in rows if not row.not_ranked]
    best = _in_tiers(ranked, makes) if ranked else []
    others = sorted((row for row in rows if row.not_ranked), key=lambda row: row.id)
    own_controls = [row for row in others if row.control]
    unranked = [row for row in others if not row.control]
    has_random = any(row.control == "random_restoration" for row in rows)
    missing = () if has_random or regime == "open" else ("random_restoration",)
    return RankingTable(
        version,
        base,
        regime,
        rows[0].entry.regime_label,
        (*best, *unranked, *own_controls, *controls),
        missing,
    )


def _in_tiers(rows: Sequence[Row], makes: RowMaker) -> list[Row]:
    means = makes.panel(_base(rows[0]), rows[0].asked).means
    by_id = _tier_numbers(rows, "id", means["id"], makes.kept)
    by_ood = _tier_numbers(rows, "ood", means["ood"], makes.kept)
    front = pareto([[row.measures[key].value or 0.0 for key in RANKED] for row in rows])
    placed = [
        dataclasses.replace(row, tier=by_id[row.id], tier_ood=by_ood[row.id], pareto=on_front)
        for row, on_front in zip(rows, front, strict=True)
    ]
    return sorted(
        placed, key=lambda r: (r.tier, r.tier_ood, -(r.measures["id"].value or 0.0), r.id)
    )


def _tier_numbers(
    rows: Sequence[Row], column: str, mean: Mean, kept: VerdictCache
) -> dict[str, int]:
    ordered = sorted(rows, key=lambda row: (-(row.measures[column].value or 0.0), row.id))
    by_id = {row.id: row for row in ordered}

    @functools.cache
    def side(name: str) -> Side:
        return mean.side(by_id[name].correct)

    def p_values(first: str, below: Sequence[str]) -> list[float | None]:
        def make(others: Sequence[str]) -> list[float | None]:
            return [found.p for found in differences(side(first), list(map(side, others)))]

        folders = {name: by_id[name].folder for name in (first, *below)}
        return kept.p_values(column, first, below, folders, make)

    found = tiers(list(by_id), p_values)
    return {name: number for number, tier in enumerate(found, 1) for name in tier}


def pareto(points: Sequence[Sequence[float]]) -> list[bool]:
    """Return which points no other beats: as good in (ID, OOD, lost) and better in one.

    Args:
        points: ID and OOD, more is better, and lost, less is better.
    """
    # In this order a point is beaten by one before it only; whatever beats that beats it too.
    values = [(one, other, -lost) for one, other, lost in points]
    front: list[tuple[float, float, float]] = []
    for value in sorted(set(values), reverse=True):
        if not any(all(map(operator.ge, better, value)) for better in front):
            front.append(value)
    best = set(front)
    return [value in best for value in values]


def table_of(found: Board, version: str, base: str, regime: str) -> RankingTable:
    """Return one table of a board.

    Raises:
        SubmissionError: there is none of that version, base and regime.
    """
    for table in found.tables:
        if (table.version, table.base, table.regime) == (version, base, regime):
            return table
    raise SubmissionError(f"The board has no table {version}/{base}/{regime}.")
