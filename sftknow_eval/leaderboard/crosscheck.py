"""Rows against each other: no two may share evidence, weights or recipes, or look alike in name.

The same outputs can be honest: a restoration whose chosen ratio changes nothing is the fine-tune
itself. Such a seed names the other row (`same_as`), which must be of the same contact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sftknow_eval.leaderboard.entry import Entry, SeedEntry
from sftknow_eval.leaderboard.texts import skeleton


def cross_faults(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return, by row, in what a row repeats one that stands before it.

    Args:
        entries: of rows that are in order by themselves, those with the older right first.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    first: dict[tuple[str, str], tuple[Entry, SeedEntry]] = {}
    spellings: dict[tuple[str, str], str] = {}
    weights: dict[str, str] = {}
    rows = {entry.row: entry for entry in entries}
    for entry in entries:
        faults[entry.row] += _lookalikes(entry, spellings)
        faults[entry.row] += _origins(entry, rows)
        faults[entry.row] += _weights_faults(entry, weights)
        for seed in entry.seeds:
            for mark in _marks(seed):
                earlier, theirs = first.setdefault(mark, (entry, seed))
                if earlier is entry and mark[0] == "outputs":
                    continue  # seeds alike: a flag on the row
                if theirs is not seed and not _declared(entry, seed, earlier, theirs):
                    faults[entry.row].append(
                        f"seed {seed.seed}: its {mark[0]} are those of seed {theirs.seed} of "
                        f"'{earlier.row}'"
                    )
    return {row: found for row, found in faults.items() if found}


def _marks(seed: SeedEntry) -> list[tuple[str, str]]:
    """Return what no two seeds share: outputs, and weights with what was restored."""
    marks = [("weights and recipe", f"{seed.weights}+{seed.restored}")]
    if seed.outputs:
        marks.append(("outputs", seed.outputs))
    return marks


def _weights_faults(entry: Entry, known: dict[str, str]) -> list[str]:
    """Return where a recipe's weights are said to be those of another fine-tune before."""
    return [
        f"seed {seed.seed}: its recipe was made for the weights of another row"
        for seed in entry.seeds
        if seed.checksum and known.setdefault(seed.checksum, seed.weights) != seed.weights
    ]


def _declared(entry: Entry, seed: SeedEntry, other: Entry, theirs: SeedEntry) -> bool:
    """Return whether one of two seeds names the other, or both a third, within one contact."""
    origins = [origin for origin in (seed.same_as, theirs.same_as) if origin]
    named = {(other.row, theirs.seed), (entry.row, seed.seed)} & set(origins)
    shared = len(origins) == 2 and origins[0] == origins[1]
    return bool(named or shared) and entry.contact == other.contact


def _origins(entry: Entry, rows: Mapping[str, Entry]) -> list[str]:
    found = []
    for seed in entry.seeds:
        if seed.same_as is None:
            continue
        row, number = seed.same_as
        other = rows.get(row)
        outputs = {theirs.seed: theirs.outputs for theirs in other.seeds} if other else {}
        if outputs.get(number, "") != seed.outputs:
            found.append(
                f"seed {seed.seed}: it is declared to give the outputs of seed {number} of "
                f"'{row}', and does not"
            )
    return found


def _lookalikes(entry: Entry, spellings: dict[tuple[str, str], str]) -> list[str]:
    found = []
    base = f"{entry.benchmark}/{entry.base}"
    names = {f"{base}/": entry.strategy, f"{base}/{entry.strategy}/": entry.run}
    for place, name in names.items():
        known = spellings.setdefault((place, skeleton(name)), name)
        if known != name:
            found.append(f"its name '{name}' looks like '{known}', which stands there already")
    return found
