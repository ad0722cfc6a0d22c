"""What a forger would do to a submission, as carefully as wanted; and whether it is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from board_making import OTHER, RANDOM, RESTORED, ROW

from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.evidence import Evidence, evidence_path, read_evidence, write_evidence
from sftknow_eval.leaderboard.verify import verify

ROWS = (OTHER, RANDOM, RESTORED, ROW)


def row_folder(root: Path, row: str = ROW) -> Path:
    """Return the folder of a row."""
    return root / "submissions" / row


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as JSON."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")


def set_in(folder: Path, place: str, value: Any) -> None:
    """Set one value in a manifest; `place` is such as `seeds.0.counts.lost.n`."""

    def change(manifest: Any) -> None:
        *way, last = place.split(".")
        for name in way:
            manifest = manifest[int(name)] if isinstance(manifest, list) else manifest[name]
        manifest[int(last) if isinstance(manifest, list) else last] = value

    edit(folder, change)


def forge_evidence(
    folder: Path, change: Callable[[Evidence], Evidence], seed: int = 0, *, digests: bool = True
) -> None:
    """Rewrite the evidence of a seed, and with `digests` every digest in the manifest too."""
    forged = change(read_evidence(folder, seed))
    written = write_evidence(evidence_path(folder, seed), forged)
    if not digests:
        return

    def repair(manifest: dict[str, Any]) -> None:
        run = next(run for run in manifest["seeds"] if run["seed"] == seed)
        run["evidence"] = written
        run["outputs"], run["prompts"] = forged.outputs_digest(), forged.prompts_digest()

    edit(folder, repair)


def forge_bytes(folder: Path, content: bytes, seed: int = 0) -> None:
    """Put any bytes in the place of evidence, with the right digest in the manifest."""
    evidence_path(folder, seed).write_bytes(content)
    set_in(folder, f"seeds.{seed}.evidence", sha256(content))


def copied_row(root: Path, name: str, of: str = ROW) -> Path:
    """Copy a row to another name of the same strategy, its manifest telling the name."""
    folder = row_folder(root, of).with_name(name)
    shutil.copytree(row_folder(root, of), folder)
    set_in(folder, "run", name)
    return folder


def replaced(evidence: Evidence, **values: Any) -> Evidence:
    """Return evidence with other columns."""
    return dataclasses.replace(evidence, **values)


def reasons_for(root: Path, row: str = ROW) -> str:
    """Return why a row is refused; all others must be recomputed."""
    verdicts = {verdict.path: verdict for verdict in verify(root)}
    for other in set(ROWS) - {row}:
        if other in verdicts:
            assert verdicts[other].status == "recomputed", verdicts[other].reasons
    found = verdicts[row]
    assert found.status == "refused", f"{row} passed"
    return "; ".join(found.reasons)
