"""Verification: recompute every number of a submission, and say why one is refused.

Every submission is checked by itself, so that none can keep the others from being checked, and
then against the others: nobody's evidence, weights or name may be another's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sftknow_eval.errors import SettingsError, SftknowError, SubmissionError
from sftknow_eval.leaderboard.base_store import load_base, prompts_of
from sftknow_eval.leaderboard.contained import files_below
from sftknow_eval.leaderboard.contamination import HeldOutFacts, overlap_flag
from sftknow_eval.leaderboard.crosscheck import cross_faults
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.manifest import MANIFEST_NAME, Manifest, read_manifest
from sftknow_eval.leaderboard.places import (
    MASTERY,
    SUBMISSIONS,
    find_root,
    submission_folders,
)
from sftknow_eval.leaderboard.rows import Contents, Flag
from sftknow_eval.leaderboard.seed_check import CheckedSeed, Reference, check_seed
from sftknow_eval.leaderboard.strategy_config import config_faults
from sftknow_eval.leaderboard.texts import encodable
from sftknow_eval.leaderboard.withdrawn import LOG_NAME, read_withdrawn

logger = logging.getLogger(__name__)

Outcome = Literal["recomputed", "self_reported", "refused"]


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What verification found.

    Attributes:
        path: of the submission, below `submissions/`.
        status: `recomputed`: every number follows from the evidence; `self_reported`: there is no
            evidence, and nothing contradicts it; `refused`: see `reasons`.
        flags: what readers should know; a row with flags is not refused.
        entry: what the row is listed by; None if it is refused.
        contents: gives what the files hold, all found in order; nothing if it is refused.
    """

    path: str
    status: Outcome
    reasons: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    entry: Entry | None = None
    contents: Callable[[], Contents] = Contents


@dataclass
class Verifier:
    """Verifies the submissions of one leaderboard; reads each base once."""

    root: Path
    _references: dict[str, Reference | SubmissionError] = field(default_factory=dict)

    def reference(self, base: str) -> Reference:
        """Return what rows of a base are held against.

        Raises:
            SubmissionError: there is no such base, or its store does not hold together.
        """
        if base not in self._references:
            self._references[base] = self._load(base)
        found = self._references[base]
        if isinstance(found, SubmissionError):
            raise found
        return found

    def _load(self, base: str) -> Reference | SubmissionError:
        folder = self.root / MASTERY / base
        if folder.is_symlink() or not folder.is_dir():
            return SubmissionError(f"there is no base '{base}' below {MASTERY}/")
        try:
            store = load_base(folder)
        except SubmissionError as error:
            return SubmissionError(f"the store of the base '{base}' is refused: {error}")
        except (ValueError, TypeError, ArithmeticError, LookupError, OSError, MemoryError) as error:
            kind = type(error).__name__
            return SubmissionError(f"the store of the base '{base}' cannot be read: {kind}")
        prompts = {style: prompts_of(store, style) for style in ("paper", "plain")}
        positions = {"both": store.positions(), **{d: store.positions(d) for d in ("id", "ood")}}
        return Reference(
            store,
            {style: digests for style, digests in prompts.items() if digests is not None},
            HeldOutFacts.of(store),
            positions,
        )

    def path(self, folder: Path) -> str:
        """Return where a submission lies below `submissions/`."""
        top, place = f"{self.root / SUBMISSIONS}/", str(folder)
        return encodable(place.removeprefix(top) if place.startswith(top) else folder.name)

    def verdict(self, folder: Path, at: str | None = None) -> Verdict:
        """Return what is found in one submission's folder, by itself.

        Args:
            folder: with the manifest.
            at: where it is to lie below `submissions/`, if not where it does.
        """
        path = at or self.path(folder)
        try:
            return self._verdict(folder, path)
        except SubmissionError as error:
            return _refused(path, str(error))
        except (SftknowError, ValueError, TypeError, ArithmeticError, LookupError) as error:
            logger.debug("%s", path, exc_info=True)
            return _refused(path, f"cannot be read: {type(error).__name__}")
        except (OSError, MemoryError, RecursionError) as error:
            return _refused(path, f"cannot be read: {type(error).__name__}")

    def _verdict(self, folder: Path, path: str) -> Verdict:
        if folder.is_symlink():
            raise SubmissionError("It is a link; a submission holds ordinary files only.")
        files = {str(file.relative_to(folder)) for file in files_below(folder)}
        manifest = read_manifest(folder)
        entry = Entry.of(manifest)
        reasons = list(_place_faults(entry, path, files))
        reference = self.reference(manifest.base.id)
        reasons += _base_faults(manifest, reference)
        reasons += config_faults(manifest)
        seeds = []
        for run in manifest.seeds:
            checked, faults = check_seed(folder, manifest, run, reference)
            reasons += faults
            seeds += [checked] if checked else []
        if len({(len(seed.asked), *seed.asked[:1]) for seed in seeds}) > 1:
            reasons.append("the seeds were asked different facts")
        if reasons:
            return _refused(path, *reasons)
        flags = tuple(_flags(manifest, seeds, reference))
        status: Outcome = "recomputed" if entry.evident else "self_reported"
        held = _contents(manifest, seeds)
        return Verdict(path, status, (), flags, entry, lambda: held)


def _refused(path: str, *reasons: str) -> Verdict:
    return Verdict(path, "refused", tuple(map(encodable, reasons)))


def _contents(manifest: Manifest, seeds: Sequence[CheckedSeed]) -> Contents:
    """Return what a submission's files hold, of its seeds by themselves."""
    return Contents(
        seeds[0].asked,
        np.stack([seed.correct for seed in seeds]),
        tuple(seed.restored for seed in seeds),
        lambda: manifest,
    )


def verify(paths: Path | Sequence[Path], root: Path | None = None) -> list[Verdict]:
    """Return a verdict on every submission below the paths, in the order of their paths.

    Args:
        paths: a leaderboard's folder, or parts of one down to single submissions. What lies
            outside is read too, so that copies are noticed; there what is named is the copy.
        root: the leaderboard's folder, where the paths do not show it.

    Raises:
        SettingsError: a path belongs to no leaderboard, or holds no submission.
    """
    asked = [paths] if isinstance(paths, Path) else list(paths)
    root = (root or find_root(asked[0])).resolve()
    chosen: set[Path] = set()
    for path in asked:
        below = submission_folders(root, path)
        if not below and path.resolve() != root:
            raise SettingsError(
                f"{path} holds no submission. One lies in {root / SUBMISSIONS}/VERSION/BASE/"
                f"STRATEGY/RUN/ and has a {MANIFEST_NAME}; 'sftknow board submit' makes it."
            )
        chosen.update(below)
    verifier = Verifier(root)
    alone = {folder: verifier.verdict(folder) for folder in submission_folders(root, root)}
    everything = any(path.resolve() == root for path in asked)
    found = with_cross_faults(alone, set() if everything else chosen)
    verdicts = [verdict for folder, verdict in found.items() if folder in chosen]
    return [*verdicts, *(_other_verdicts(root, verifier) if everything else ())]


def _other_verdicts(root: Path, verifier: Verifier) -> Iterator[Verdict]:
    """Yield what is refused besides submissions: stores of bases, the log of withdrawn rows."""
    for folder in sorted((root / MASTERY).iterdir()):
        if folder.name.startswith("."):
            continue
        try:
            verifier.reference(folder.name)
        except SubmissionError as error:
            yield _refused(encodable(f"../{MASTERY}/{folder.name}"), str(error))
    try:
        read_withdrawn(root)
    except SubmissionError as error:
        yield _refused(f"../{LOG_NAME}", str(error))


def with_cross_faults(found: dict[Path, Verdict], chosen: set[Path]) -> dict[Path, Verdict]:
    """Return the verdicts after each row was compared with all others.

    Of two rows that must not be alike the one in `chosen` is refused; where both or none are, the
    one created later, and of two of one day the one whose path comes later.
    """
    entries = {folder: verdict.entry for folder, verdict in found.items() if verdict.entry}
    ordered = sorted(
        entries, key=lambda folder: (folder in chosen, entries[folder].created, str(folder))
    )
    faults = cross_faults([entries[folder] for folder in ordered])
    refused = dict(found)
    for folder in ordered:
        if reasons := faults.get(entries[folder].row):
            refused[folder] = _refused(found[folder].path, *reasons)
    return refused


def _place_faults(entry: Entry, path: str, files: set[str]) -> Iterator[str]:
    if entry.row != path:
        yield f"the manifest is that of the row '{entry.row}', and lies at '{path[:200]}'"
    wanted = set(entry.files)
    if extra := sorted(files - wanted):
        yield f"files that the manifest does not name: {', '.join(map(repr, extra[:5]))}"
    if missing := sorted(wanted - files):
        yield f"files that are missing: {', '.join(map(repr, missing[:5]))}"


def _base_faults(manifest: Manifest, reference: Reference) -> Iterator[str]:
    said, is_so = manifest.base, reference.store.manifest_base()
    names = ("name", "revision", "fingerprint", "mastery", "facts")
    if other := [name for name in names if getattr(said, name) != getattr(is_so, name)]:
        yield (
            f"it was made with another base or mastery table than '{said.id}' here: "
            f"{', '.join(other)} differ"
        )
    if manifest.asking.documents != reference.store.documents:
        yield "it was asked other facts: the digest of the documents differs"
    if any(run.weights.fingerprint == said.fingerprint for run in manifest.seeds):
        yield "its weights are the base's own; the base stands on every board already"


def _flags(manifest: Manifest, seeds: list[CheckedSeed], reference: Reference) -> Iterator[Flag]:
    contaminated = sorted({name for seed in seeds for name in seed.contaminated})
    if flag := overlap_flag(contaminated, len(reference.store.ids)):
        yield flag
    if manifest.training_data.test_facts != "no":
        declared = {"yes": "were", "unknown": "may have been"}[manifest.training_data.test_facts]
        yield Flag("declared-test-facts", f"The submitter says: test facts {declared} trained on.")
    same = {run.same_as.row for run in manifest.seeds if run.same_as}
    if same:
        yield Flag(
            "same-outputs", f"Declared to give the same outputs as {', '.join(sorted(same))}."
        )
