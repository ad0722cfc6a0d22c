"""Verdicts of unchanged submissions, kept between builds of a board.

A verdict is recognised by the bytes of the submission and of its base's store, and by the version
of this package: nothing can change unnoticed. What is kept are verdicts and packed bits, not the
judged texts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sftknow_eval import __version__
from sftknow_eval.artifacts import write_json
from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.contained import files_below, read_bytes
from sftknow_eval.leaderboard.manifest import Manifest, read_manifest
from sftknow_eval.leaderboard.rows import Flag
from sftknow_eval.leaderboard.seed_check import CheckedSeed
from sftknow_eval.leaderboard.verify import Verdict

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.verify import Verifier

_NAME = "verdicts.json"
_FORMAT = f"sftknow-verdicts/1 {__version__}"
_LIMIT = 256 << 20


class VerdictCache:
    """Asks a verifier only about submissions that changed."""

    def __init__(self, folder: Path | None, verifier: Verifier) -> None:
        self._path = folder / _NAME if folder else None
        self._verifier = verifier
        self._before: dict[str, Any] = {}
        self._now: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._path and self._path.is_file():
            try:
                held = json.loads(self._path.read_text(encoding="utf-8"))
                if held.get("format") == _FORMAT:
                    self._before = held["verdicts"]
            except (ValueError, KeyError, AttributeError):
                self._before = {}  # a cache that cannot be read is as good as none
        return self

    def __exit__(self, *failure: object) -> None:
        if self._path and failure[0] is None and self._now.keys() != self._before.keys():
            write_json(self._path, {"format": _FORMAT, "verdicts": self._now})

    def verdict(self, folder: Path) -> Verdict:
        """Return the verdict on a submission by itself."""
        if self._path is None:
            return self._verifier.verdict(folder)
        try:
            manifest = read_manifest(folder)
            key = self._key(folder, manifest)
        except (SubmissionError, OSError):
            return self._verifier.verdict(folder)
        held = self._before.get(key)
        if held is not None:
            self._now[key] = held
            return self._restored(held, manifest)
        verdict = self._verifier.verdict(folder)
        self._now[key] = self._packed(verdict)
        return verdict

    def _key(self, folder: Path, manifest: Manifest) -> str:
        marks = [str(folder.name), self._verifier.path(folder)]
        for file in files_below(folder):
            content = read_bytes(file, folder, _LIMIT)
            marks += [str(file.relative_to(folder)), hashlib.sha256(content).hexdigest()]
        store = self._verifier.reference(manifest.base.id).store
        marks.append(store.info.model_dump_json())
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    def _packed(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "path": verdict.path,
            "status": verdict.status,
            "reasons": list(verdict.reasons),
            "flags": [[flag.kind, flag.text] for flag in verdict.flags],
            "seeds": [_packed_seed(seed) for seed in verdict.seeds],
        }

    def _restored(self, held: dict[str, Any], manifest: Manifest) -> Verdict:
        positions = self._verifier.reference(manifest.base.id).positions
        seeds = []
        for run, entry in zip(manifest.seeds, held["seeds"], strict=False):
            n = entry["n"]
            bits = np.frombuffer(base64.b64decode(entry["correct"]), np.uint8)
            asked = next((p for p in positions.values() if len(p) == n), np.zeros(0, np.int64))
            restored = tuple(entry["restored"]) if entry["restored"] else None
            correct = np.unpackbits(bits, count=n).astype(bool)
            seeds.append(CheckedSeed(run, asked, correct, restored, tuple(entry["contaminated"])))
        flags = tuple(Flag(kind, text) for kind, text in held["flags"])
        return Verdict(
            held["path"], held["status"], tuple(held["reasons"]), flags, manifest, tuple(seeds)
        )


def _packed_seed(seed: CheckedSeed) -> dict[str, Any]:
    return {
        "n": len(seed.correct),
        "correct": base64.b64encode(np.packbits(seed.correct).tobytes()).decode(),
        "restored": seed.restored,
        "contaminated": list(seed.contaminated),
    }
