"""Files from strangers: inside their folder, ordinary, and no larger than agreed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sftknow_eval.errors import SubmissionError

_MAX_FILES = 512


def read_bytes(path: Path, root: Path, limit: int) -> bytes:
    """Return the bytes of an ordinary file below `root` of at most `limit` bytes.

    Links are not followed, neither the file itself nor a folder on the way from `root`.

    Raises:
        SubmissionError: the file is missing, a link, no ordinary file, elsewhere, or too large.
    """
    check_inside(path, root)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SubmissionError(f"{_name(path, root)} cannot be opened: {error.strerror}.") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise SubmissionError(f"{_name(path, root)} is not an ordinary file.")
        if found.st_size > limit:
            raise SubmissionError(
                f"{_name(path, root)} has {found.st_size:,} bytes; at most {limit:,} are read."
            )
        return file.read(limit + 1)[:limit]


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path that leaves `root` or goes over a link.

    Raises:
        SubmissionError: it does; the part is named.
    """
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ("..",)
    if ".." in parts:
        raise SubmissionError(f"{path.name!r} leads out of the submission's folder.")
    walked = root
    for part in parts:
        walked = walked / part
        if walked.is_symlink():
            raise SubmissionError(
                f"{_name(walked, root)} is a link; a submission holds ordinary files only."
            )


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted, without following links.

    Raises:
        SubmissionError: there are too many, or one is a link or no ordinary file.
    """
    count = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(place) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no ordinary file"
                raise SubmissionError(
                    f"{_name(path, folder)} is {kind}; a submission holds ordinary files only."
                )
            if (count := count + 1) > _MAX_FILES:
                raise SubmissionError(f"The submission holds more than {_MAX_FILES} files.")
            if stat.S_ISREG(mode):
                yield path


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes, as hex."""
    return hashlib.sha256(content).hexdigest()


def _name(path: Path, root: Path) -> str:
    return repr(str(path.relative_to(root)) if path.is_relative_to(root) else path.name)
