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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sftknow_eval.errors import SubmissionError
from sftknow_eval.evaluation.statistics.tiers import Side, differences, tiers
from sftknow_eval.leaderboard.base_rows import base_rows
from sftknow_eval.leaderboard.columns import BY_KEY, RANKED
from sftknow_eval.leaderboard.contamination import StratumZero, stratum_zero_flag
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.manifest import Manifest
from sftknow_eval.leaderboard.measures import Mean, Panel, difference, of_numbers
from sftknow_eval.leaderboard.places import submission_folders
from sftknow_eval.leaderboard.reproductions import FOLDER as REPRODUCTIONS
from sftknow_eval.leaderboard.reproductions import is_reproduced, record_path
from sftknow_eval.leaderboard.rows import (
    Board,
    Contents,
    Measure,
    RankingTable,
    Refused,
    Row,
    Status,
    Withdrawn,
)
from sftknow_eval.leaderboard.verdict_cache import Numbers, VerdictCache
from sftknow_eval.leaderboard.verify import Verdict, Verifier, with_cross_faults
from sftknow_eval.leaderboard.withdrawn import read_withdrawn
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

FEWEST_SEEDS = 3
_NOTHING = dict.fromkeys(BY_KEY, Measure(None))


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
        rows = _Rows(root, verifier, kept, {entry.row: entry for entry in withdrawn})
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


class _Rows:
    """Makes rows of verdicts; the panels of each base are made once."""

    def __init__(
        self,
        root: Path,
        verifier: Verifier,
        kept: VerdictCache,
        withdrawn: Mapping[str, Withdrawn],
    ) -> None:
        self._root, self._verifier, self.kept, self._withdrawn = root, verifier, kept, withdrawn
        self._reproduced = (root / REPRODUCTIONS).is_dir()
        self._panels: dict[tuple[str, int, int], Panel] = {}

    def panel(self, base: str, asked: np.ndarray) -> Panel:
        """Return the means over the facts asked."""
        key = (base, len(asked), int(asked[0]) if len(asked) else -1)
        if key not in self._panels:
            store = self._verifier.reference(base).store
            self._panels[key] = Panel.of(
                store.code[asked], store.subject_code[asked], store.knows[asked]
            )
        return self._panels[key]

    def row(self, folder: Path, verdict: Verdict) -> Row:
        """Return the row of a submission that passed verification."""
        entry = verdict.entry
        assert entry is not None
        make = functools.partial(self._numbers, entry, verdict.contents)
        measures, base_difference = self.kept.numbers(folder, make)
        status = self._status(folder, verdict, entry)
        return Row(
            id=entry.row,
            folder=folder,
            entry=entry,
            contents=verdict.contents,
            title=entry.title,
            status=status,
            control=entry.control,
            measures=measures,
            flags=verdict.flags,
            not_ranked=tuple(_not_ranked(entry, status, measures)),
            base_difference=base_difference,
            mark=self.kept.mark(folder),
        )

    def _numbers(self, entry: Entry, contents: Callable[[], Contents]) -> Numbers:
        held = contents()
        assert held.manifest is not None
        others = _other_measures(held.manifest, held.restored)
        if not entry.evident:
            return _NOTHING | _counted(held.manifest) | others, {}
        panel = self.panel(entry.base, held.asked)
        knows = self._verifier.reference(entry.base).store.knows[held.asked][None]
        base_difference = {
            domain: difference(held.correct, knows, panel.means[domain])
            for domain in ("id", "ood")
            if panel.means[domain].parts
        }
        return _NOTHING | panel.measures(held.correct) | others, base_difference

    def _status(self, folder: Path, verdict: Verdict, entry: Entry) -> Status:
        if entry.row in self._withdrawn:
            return "withdrawn"
        if verdict.status != "recomputed":
            return "self_reported"
        if self._reproduced and record_path(self._root, entry.row).is_file():
            manifest = verdict.contents().manifest
            assert manifest is not None
            if is_reproduced(self._root, folder, manifest):
                return "reproduced"
        return "recomputed"


def _base(row: Row) -> str:
    return row.id.split("/")[1]


def _counted(manifest: Manifest) -> dict[str, Measure]:
    """Return the shares of a row without evidence: as claimed, over seeds only."""
    found: dict[str, Measure] = {}
    for domain in ("id", "ood"):
        strata = [getattr(run.counts, domain) for run in manifest.seeds]
        if any(entry is None for entry in strata):
            continue
        shares = [[s.n_correct / s.n if s.n else None for s in entry] for entry in strata]
        for s in range(N_STRATA):
            found[f"{domain}_{s}"] = of_numbers([entry[s] for entry in shares])
        held = [[share for share in entry if share is not None] for entry in shares]
        found[domain] = of_numbers([sum(e) / len(e) if e else None for e in held])
    for name in ("lost", "gained"):
        counts = [getattr(run.counts, name) for run in manifest.seeds]
        found[name] = of_numbers([c.n_correct / c.n if c.n else None for c in counts])
    return found


def _other_measures(
    manifest: Manifest, restored: Sequence[tuple[int, int] | None]
) -> dict[str, Measure]:
    runs = manifest.seeds
    drift = [run.counts.token_drift.mean if run.counts.token_drift else None for run in runs]
    shares = [counts[0] / counts[1] if counts and counts[1] else None for counts in restored]
    return {
        "token_drift": of_numbers(drift),
        "restored_share": of_numbers(shares),
        "trained_parameters": of_numbers([_float(run.trained_parameters) for run in runs]),
        "gpu_hours": of_numbers([run.gpu_hours for run in runs]),
    }


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)


def _not_ranked(entry: Entry, status: Status, measures: Mapping[str, Measure]) -> Iterable[str]:
    if entry.control:
        yield "a control"
    if status == "withdrawn":
        yield "withdrawn"
    if status == "self_reported":
        yield "reported only, without evidence"
    if len(entry.seeds) < FEWEST_SEEDS:
        yield f"{len(entry.seeds)} of at least {FEWEST_SEEDS} seeds"
    missing = [BY_KEY[key].label for key in RANKED if measures[key].value is None]
    if missing:
        yield f"missing: {', '.join(missing)}"


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
    rows: Sequence[Row], makes: _Rows, controls: Mapping[str, Sequence[Row]]
) -> tuple[RankingTable, ...]:
    grouped: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        assert row.entry is not None
        grouped[row.entry.benchmark, row.entry.base, row.entry.regime].append(row)
    return tuple(
        _table(key, members, makes, controls[key[1]]) for key, members in sorted(grouped.items())
    )


def _table(
    key: tuple[str, str, str], rows: list[Row], makes: _Rows, controls: Sequence[Row]
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


def _in_tiers(rows: Sequence[Row], makes: _Rows) -> list[Row]:
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
