"""The rows of a board: what a verified submission's evidence says, in numbers, and its status."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sftknow_eval.leaderboard.columns import BY_KEY, RANKED
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.manifest import Manifest
from sftknow_eval.leaderboard.measures import Panel, difference, of_numbers
from sftknow_eval.leaderboard.reproductions import FOLDER as REPRODUCTIONS
from sftknow_eval.leaderboard.reproductions import is_reproduced, record_path
from sftknow_eval.leaderboard.rows import Contents, Measure, Row, Status, Withdrawn
from sftknow_eval.leaderboard.verdict_cache import Numbers, VerdictCache
from sftknow_eval.leaderboard.verify import Verdict, Verifier
from sftknow_eval.mastery.table import N_STRATA

FEWEST_SEEDS = 3
_NOTHING = dict.fromkeys(BY_KEY, Measure(None))


class RowMaker:
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
