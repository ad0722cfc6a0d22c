"""Files that are either whole or absent, digests of what they hold, and provenance.

Everything the package writes goes through `atomic_path` or `atomic_folder`: the content is
written under a temporary name in the same folder and renamed last, so that a killed run leaves
nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftknow_eval.errors import DataError, OutOfSpace, SettingsError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_dir() -> Path:
    """Return the folder for downloads and shared tables (`SFTKNOW_CACHE`, else ~/.cache)."""
    configured = os.environ.get("SFTKNOW_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "sftknow"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` only when the block ends without error.

    Raises:
        OutOfSpace: the disk filled up; `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        if is_disk_full(error):
            raise OutOfSpace(
                f"No space left while writing {path}. What was finished before is intact: "
                "free some space and run the same command again to go on."
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` only when the block ends without error.

    `folder` must not exist, or be empty. What killed runs left behind is removed first.

    Raises:
        OutOfSpace: the disk filled up; nothing is left.
    """
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        if not _is_running(left.name.split(".")[-2]):
            shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except Exception as error:
        if is_disk_full(error):
            raise OutOfSpace(
                f"No space left while writing {folder}; nothing of it was kept. Free some space "
                "and run the same command again."
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this run; the lock ends with the process, however it ends.

    Raises:
        SettingsError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".sftknow.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"Another run is writing into {folder}. Wait until it has ended, or choose another "
                "--out."
            ) from error
        yield


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that the disk, a quota or a size limit is exhausted."""
    # safetensors reports a full disk as an error of its own, with the number in the text.
    return getattr(error, "errno", None) in _DISK_FULL or any(
        f"os error {number})" in str(error) for number in _DISK_FULL
    )


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not readable as JSON: {error}") from error


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package that is present, by distribution name."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
