"""What recognises a submission's files: digests, kept by what the file system says of the files.

As in git's index: a file of the same size, times, and number on the disk holds the same bytes, and
is not read again. What was changed within two seconds before it was read is not trusted so far: it
could be changed again within one tick of the file system's clock.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import sftknow_eval
from sftknow_eval.leaderboard.kept_lines import KeptLines

_LIMIT = 256 << 20
_RACY_NS = 2_000_000_000
# Rooms in which no number of a board is made.
_ELSEWHERE = ("cli", "demo", "pages", "report", "study", "sweep", "training", "world")


def file_marks(folder: Path, kept: KeptLines, start_ns: int) -> list[str]:
    """Return the names of all files below a folder, each followed by its digest.

    Args:
        folder: of a submission.
        kept: from earlier builds.
        start_ns: when this build began, in nanoseconds since 1970.

    Raises:
        ValueError: it holds something else than ordinary files, or a very large one.
        OSError: a file cannot be read.
    """
    top = str(folder)
    if stat.S_ISLNK(os.lstat(top).st_mode):
        raise ValueError("a link")
    key = f"files:{hashlib.sha256(os.fsencode(top)).hexdigest()}"
    files = sorted(_files(top, ""))
    # No name holds a zero byte.
    shown = "\0".join(text for name, *state in files for text in (name, *map(str, state)))
    held = kept.get(key)
    if held is not None and held[0] == shown:
        marks: list[str] = held[1]
        return marks
    kept.drop(key)
    marks = [text for name, *_ in files for text in (name, _digest(f"{top}/{name}"))]
    if all(max(changed, moved) < start_ns - _RACY_NS for _, _, _, changed, moved in files):
        kept.put(key, [shown, marks])
    return marks


def _files(folder: str, below: str) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield name, bytes, number, and times of change of every file, as the file system has it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            state = entry.stat(follow_symlinks=False)
            name = below + entry.name
            if stat.S_ISDIR(state.st_mode):
                yield from _files(entry.path, f"{name}/")
            elif stat.S_ISREG(state.st_mode) and state.st_size <= _LIMIT:
                yield name, state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns
            else:
                raise ValueError("a link, or no file of a submission")


def _digest(path: str) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as opened:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LIMIT:
            raise ValueError("no file of a submission")
        return hashlib.file_digest(opened, "sha256").hexdigest()


@functools.lru_cache
def code_digest() -> str:
    """Return the SHA-256 of the source that verdicts and numbers are made with."""
    package = Path(sftknow_eval.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        room, *inside = path.relative_to(package).parts
        if room.removesuffix(".py") not in _ELSEWHERE and inside[:1] != ["site"]:
            found.update(path.read_bytes())
    return found.hexdigest()
