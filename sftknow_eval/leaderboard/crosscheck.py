"""Rows against each other: no two may share evidence, weights or recipes, or look alike in name.

The same outputs can be honest: a restoration whose chosen ratio changes nothing is the fine-tune
itself. Such a seed names the other row (`same_as`), which must be of the same contact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sftknow_eval.leaderboard.manifest import Manifest, SeedRun
from sftknow_eval.leaderboard.texts import skeleton


def cross_faults(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return, by row, in what a row repeats one that stands before it.

    Args:
        manifests: of rows that are in order by themselves, those with the older right first.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    first: dict[tuple[str, str], tuple[Manifest, SeedRun]] = {}
    spellings: dict[tuple[str, str], str] = {}
    weights: dict[str, str] = {}
    rows = {manifest.row: manifest for manifest in manifests}
    for manifest in manifests:
        faults[manifest.row] += _lookalikes(manifest, spellings)
        faults[manifest.row] += _origins(manifest, rows)
        faults[manifest.row] += _weights_faults(manifest, weights)
        for run in manifest.seeds:
            for mark in _marks(run):
                earlier, theirs = first.setdefault(mark, (manifest, run))
                if earlier is manifest and mark[0] == "outputs":
                    continue  # seeds alike: a flag on the row
                if theirs is not run and not _declared(manifest, run, earlier, theirs):
                    faults[manifest.row].append(
                        f"seed {run.seed}: its {mark[0]} are those of seed {theirs.seed} of "
                        f"'{earlier.row}'"
                    )
    return {row: found for row, found in faults.items() if found}


def _marks(run: SeedRun) -> list[tuple[str, str]]:
    """Return what no two seeds share: outputs, and weights with what was restored."""
    digest = mask = ""
    if run.recipe:
        digest, mask = run.recipe.digest or "", run.recipe.mask or ""
    marks = [("weights and recipe", f"{run.weights.fingerprint}+{digest}+{mask}")]
    if run.outputs:
        marks.append(("outputs", run.outputs))
    return marks


def _weights_faults(manifest: Manifest, known: dict[str, str]) -> list[str]:
    """Return where a recipe's weights are said to be those of another fine-tune before."""
    return [
        f"seed {run.seed}: its recipe was made for the weights of another row"
        for run in manifest.seeds
        if run.weights.checksum
        and known.setdefault(run.weights.checksum, run.weights.fingerprint)
        != run.weights.fingerprint
    ]


def _declared(manifest: Manifest, run: SeedRun, other: Manifest, theirs: SeedRun) -> bool:
    """Return whether one of two seeds names the other, or both a third, within one contact."""
    origins = [(origin.row, origin.seed) for origin in (run.same_as, theirs.same_as) if origin]
    named = {(other.row, theirs.seed), (manifest.row, run.seed)} & set(origins)
    shared = len(origins) == 2 and origins[0] == origins[1]
    return bool(named or shared) and manifest.contact == other.contact


def _origins(manifest: Manifest, rows: Mapping[str, Manifest]) -> list[str]:
    found = []
    for run in manifest.seeds:
        if run.same_as is None:
            continue
        other = rows.get(run.same_as.row)
        outputs = {theirs.seed: theirs.outputs for theirs in other.seeds} if other else {}
        if outputs.get(run.same_as.seed, "") != run.outputs:
            found.append(
                f"seed {run.seed}: it is declared to give the outputs of seed "
                f"{run.same_as.seed} of '{run.same_as.row}', and does not"
            )
    return found


def _lookalikes(manifest: Manifest, spellings: dict[tuple[str, str], str]) -> list[str]:
    found = []
    base = f"{manifest.benchmark}/{manifest.base.id}"
    names = {
        f"{base}/": manifest.strategy,
        f"{base}/{manifest.strategy}/": manifest.run,
    }
    for place, name in names.items():
        known = spellings.setdefault((place, skeleton(name)), name)
        if known != name:
            found.append(f"its name '{name}' looks like '{known}', which stands there already")
    return found
