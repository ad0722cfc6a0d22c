"""Verdicts of unchanged submissions and their numbers, kept between builds of a board.

A verdict is recognised by the bytes of the submission and of its base's store, and by the source
of this package: nothing can change unnoticed. What is kept are verdicts, packed bits and measures,
not the judged texts.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.file_marks import code_digest, folder_digest
from sftknow_eval.leaderboard.kept_lines import KeptLines
from sftknow_eval.leaderboard.manifest import MANIFEST_NAME, Manifest
from sftknow_eval.leaderboard.rows import Contents, Flag, Measure
from sftknow_eval.leaderboard.verify import Verdict

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.verify import Verifier

_VERDICTS, _PAIRS = "verdicts.txt", "pairs.txt"
# 128 bits of a digest name a row among the pairs of a board.
_PAIR_MARK = 32

Numbers = tuple[Mapping[str, Measure], Mapping[str, Measure]]


class VerdictCache:
    """Asks a verifier only about submissions that changed."""

    def __init__(self, folder: Path | None, verifier: Verifier, *, fresh: bool = False) -> None:
        self._on = folder is not None
        self._kept, self._pairs = (
            KeptLines(folder / name if folder else None, code_digest(), fresh=fresh)
            for name in (_VERDICTS, _PAIRS)
        )
        self._verifier = verifier
        self._held: dict[str, dict[str, Any]] = {}
        self._keys: dict[Path, str] = {}
        self._infos: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._kept.write()
            self._pairs.write()

    def verdict(self, folder: Path) -> Verdict:
        """Return the verdict on a submission by itself."""
        if not self._on:
            return self._verifier.verdict(folder)
        try:
            key = self._key(folder)
        except (SubmissionError, OSError, ValueError, LookupError):
            return self._verifier.verdict(folder)
        held = self._kept.get(key)
        if held is None:
            verdict = self._verifier.verdict(folder)
            held = self._packed(verdict)
            self._kept.put(key, held)
        else:
            verdict = self._restored(held, folder)
        self._held[key] = held
        self._keys[folder] = key
        return verdict

    def numbers(self, folder: Path, make: Callable[[], Numbers]) -> Numbers:
        """Return the measures that follow from a submission's verdict alone."""
        key = self._keys.get(folder, "")
        held = self._held.get(key)
        if held is None:
            return make()
        if "numbers" not in held:
            made = make()
            held["numbers"] = [{k: _packed_measure(m) for k, m in part.items()} for part in made]
            self._kept.put(key, held)
            return made
        first, second = map(_KeptMeasures, held["numbers"])
        return first, second

    def p_values(
        self,
        column: str,
        first: str,
        others: Sequence[str],
        folders: Mapping[str, Path | None],
        make: Callable[[Sequence[str]], Sequence[float | None]],
    ) -> list[float | None]:
        """Return the p-values of a row against others; what is known of a pair is not made again.

        Args:
            column: the mean compared.
            first: id of the row.
            others: ids of the others.
            folders: of all of them.
            make: the p-values against the others named.
        """
        marks = {
            name: self._keys.get(folder, "")[:_PAIR_MARK] if folder else ""
            for name, folder in folders.items()
        }
        if "" in marks.values():
            return list(make(others))
        key = f"{column}:{marks[first]}"
        known = self._pairs.get(key) or {}
        missing = [other for other in others if marks[other] not in known]
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        found = [made[other] if other in made else known[marks[other]] for other in others]
        if missing:
            self._pairs.put(key, {marks[o]: p for o, p in zip(others, found, strict=True)})
        return found

    def mark(self, folder: Path) -> str:
        """Return what recognises a submission and the source that judged it; empty if unknown."""
        key = self._keys.get(folder)
        return f"{code_digest()} {key}" if key else ""

    def _key(self, folder: Path) -> str:
        """Return what recognises a submission."""
        path = self._verifier.path(folder)
        marks = [path, self._info(path.split("/")[-3]), folder_digest(folder)]
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    def _info(self, base: str) -> str:
        if base not in self._infos:
            self._infos[base] = self._verifier.reference(base).store.info.model_dump_json()
        return self._infos[base]

    def _packed(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "path": verdict.path,
            "status": verdict.status,
            "reasons": list(verdict.reasons),
            "flags": [[flag.kind, flag.text] for flag in verdict.flags],
            "entry": verdict.entry.packed() if verdict.entry else None,
            "contents": self._packed_contents(verdict.entry, verdict.contents()),
        }

    def _packed_contents(self, entry: Entry | None, contents: Contents) -> dict[str, Any]:
        correct, asked = contents.correct, ""
        if entry and entry.evident:
            positions = self._verifier.reference(entry.base).positions
            asked = next(k for k, known in positions.items() if known is contents.asked)
        return {
            "asked": asked,
            "shape": correct.shape,
            "correct": base64.b64encode(np.packbits(correct).tobytes()).decode(),
            "restored": contents.restored,
        }

    def _restored(self, held: dict[str, Any], folder: Path) -> Verdict:
        entry = Entry.unpacked(held["entry"]) if held["entry"] else None
        flags = tuple(Flag(kind, text) for kind, text in held["flags"])
        verdict = Verdict(held["path"], held["status"], tuple(held["reasons"]), flags)
        if entry is None:
            return verdict
        contents = functools.partial(self._contents, held["contents"], folder, entry.base)
        return dataclasses.replace(verdict, entry=entry, contents=functools.cache(contents))

    def _contents(self, held: dict[str, Any], folder: Path, base: str) -> Contents:
        positions = self._verifier.reference(base).positions
        asked = positions.get(held["asked"], np.zeros(0, np.int64))
        bits = np.frombuffer(base64.b64decode(held["correct"]), np.uint8)
        correct = np.unpackbits(bits, count=math.prod(held["shape"])).astype(bool)
        restored = tuple(tuple(counts) if counts else None for counts in held["restored"])
        read = functools.cache(functools.partial(_manifest, folder))
        return Contents(asked, correct.reshape(held["shape"]), restored, read)


def _manifest(folder: Path) -> Manifest:
    # These very bytes were read with all care before.
    return Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())


class _KeptMeasures(Mapping[str, Measure]):
    """Measures that are unpacked when one is asked for: of most rows few are."""

    def __init__(self, held: dict[str, list[Any]]) -> None:
        self._held = held
        self._made: dict[str, Measure] = {}

    def __getitem__(self, name: str) -> Measure:
        if name not in self._made:
            self._made[name] = _restored_measure(self._held[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _packed_measure(found: Measure) -> list[Any]:
    return [found.value, found.low, found.high, list(found.seeds), found.sd, found.method]


def _restored_measure(held: list[Any]) -> Measure:
    value, low, high, seeds, sd, method = held
    return Measure(value, low, high, tuple(seeds), sd, method)
