"""What recognises a submission: the digest of all its files, names and bytes.

Every byte is read at every build. What a file system says of a file (size, times) does not prove
that its bytes are the same, and says something else after a checkout or a restored cache. To read
and digest a thousand rows, 100 MB, takes a quarter of a second.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import sftknow_eval

_LIMIT = 256 << 20
# Rooms in which no number of a board is made.
_ELSEWHERE = ("cli", "demo", "pages", "report", "study", "sweep", "training", "world")


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of all files below a folder.

    Raises:
        ValueError: it holds something else than ordinary files, or a very large one.
        OSError: a file cannot be read.
    """
    top = str(folder)
    if stat.S_ISLNK(os.lstat(top).st_mode):
        raise ValueError("a link")
    found = hashlib.sha256()
    for name in sorted(_files(top, "")):
        # No name holds a zero byte.
        found.update(os.fsencode(f"{name}\0") + _digest(f"{top}/{name}"))
    return found.hexdigest()


def _files(folder: str, below: str) -> Iterator[str]:
    """Yield the name of every file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield below + entry.name
            else:
                raise ValueError("a link, or no file of a submission")


def _digest(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LIMIT:
            raise ValueError("no file of a submission")
        # Nearly always the whole file at once: fewer bytes than asked for are the last ones.
        piece = os.read(handle, state.st_size + 1)
        found = hashlib.sha256(piece)
        while len(piece) > state.st_size:
            piece = os.read(handle, state.st_size + 1)
            found.update(piece)
        return found.digest()
    finally:
        os.close(handle)


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
