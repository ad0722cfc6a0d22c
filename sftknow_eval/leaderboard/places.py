"""Where submissions lie in a leaderboard's folder, also those that lie in the wrong place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.manifest import MANIFEST_NAME

SUBMISSIONS = "submissions"
MASTERY = "mastery"
_DEPTH = 4


def find_root(path: Path) -> Path:
    """Return the leaderboard's folder that a path belongs to.

    Raises:
        SettingsError: neither it nor a folder above it holds `submissions/` and `mastery/`.
    """
    start = _plain(path)
    for folder in (start, *start.parents):
        if (folder / SUBMISSIONS).is_dir() and (folder / MASTERY).is_dir():
            return folder
    raise SettingsError(
        f"{path} belongs to no leaderboard: a folder with {SUBMISSIONS}/ and {MASTERY}/ was "
        "expected. 'sftknow board submit RESULTS --root DIR' makes one."
    )


def submission_folders(root: Path, below: Path) -> list[Path]:
    """Return the submissions' folders below a path, or the one that holds it.

    Those are: folders four levels deep; folders with a manifest at another depth, which will be
    refused for their place; and links, which will be refused for being links.
    """
    asked, top = _plain(below), root.resolve()
    found = [Path(place) for place in sorted(set(_submissions(f"{top / SUBMISSIONS}")))]
    if asked == top:
        return found
    inside = [folder for folder in found if folder == asked or asked in folder.parents]
    return inside or [folder for folder in found if folder in asked.parents]


def _submissions(folder: str, depth: int = 0) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return
    manifest = any(map(_is_manifest, found))
    if depth == _DEPTH or (depth and manifest):
        yield folder
    if depth == _DEPTH and manifest:
        return  # whatever lies below is of this submission, and refused if it does not name it
    for entry in found:
        # What begins with a dot a killed run left behind; no site shows it.
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _submissions(entry.path, depth + 1)
        elif depth < _DEPTH and entry.is_symlink() and entry.is_dir():
            yield entry.path


def _is_manifest(entry: os.DirEntry[str]) -> bool:
    return entry.name == MANIFEST_NAME and not entry.is_dir()


def _plain(path: Path) -> Path:
    """Return the absolute path; a link that it ends in stays one."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name
