"""A site's folder: made beside the earlier one, then put in its place.

Files whose inputs did not change stay where they are; the others are written beside the site and
renamed into it when all are there, so that every page is whole at any time. A site of which no file
stays is put in place as a whole. `site.json` lists every file with the digest of its inputs; its
presence is what says that a folder is a site of ours and may be changed. While files are renamed it
lists them without a digest: what a killed build leaves is not taken for made, and not published.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SettingsError

SITE_NAME = "site.json"
FORMAT = "sftknow-site/1"
# Of a file that a build was about to change: no inputs have this digest, no file this size.
_UNFINISHED = ["", -1]


class SiteFolder:
    """Collects the files of a site in a folder beside `out`, and puts it there at the end.

    Attributes:
        written: files that were rendered or copied in this build.
        kept: files of the earlier site that stay.
    """

    def __init__(self, out: Path, fresh: bool = False) -> None:
        self.out = out
        self._partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        self._before: dict[str, list[Any]] = {} if fresh else earlier_files(out)
        self._files: dict[str, list[Any]] = {}
        self._folders: set[str] = set()
        self.written = 0
        self.kept = 0

    def __enter__(self) -> SiteFolder:
        self._partial.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def keep(self, *names: str, key: str) -> bool:
        """Leave files of the earlier site in place if all were made from the inputs `key`."""
        if any(not self._same(name, key) for name in names):
            return False
        for name in names:
            if name in self._files:
                self._check(name)
            self._files[name] = self._before[name]
        self.kept += len(names)
        return True

    def text(self, name: str, key: str, content: Callable[[], str]) -> None:
        """Write a text file, or leave it when its inputs are the same."""
        if not self.keep(name, key=key):
            self.add(name, content().encode(), key)

    def add(self, name: str, content: bytes, key: str) -> None:
        """Write a file."""
        Path(self._place(name)).write_bytes(content)
        self._files[name] = [key, len(content)]
        self.written += 1

    def copy(self, name: str, source: Path, key: str) -> None:
        """Copy a file into the site."""
        path = self._place(name)
        shutil.copyfile(source, path)
        self._files[name] = [key, Path(path).stat().st_size]
        self.written += 1

    def _place(self, name: str) -> str:
        self._check(name)
        folder = name.rpartition("/")[0]
        if folder not in self._folders:
            (self._partial / folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        return f"{self._partial}/{name}"

    def _check(self, name: str) -> None:
        if name in self._files or not _inside(name):
            raise SettingsError(f"The site cannot hold a file '{name}' (twice, or outside of it).")

    def _same(self, name: str, key: str) -> bool:
        known = self._before.get(name)
        if known is None or known[0] != key:
            return False
        try:
            return bool(os.stat(f"{self.out}/{name}").st_size == known[1])  # noqa: PTH116 - thousands
        except OSError:
            return False

    def _finish(self) -> None:
        if self.kept:
            self._change()
            return
        self._index(self._files)
        previous = self.out.with_name(f".{self.out.name}.{os.getpid()}.previous")
        with contextlib.suppress(FileNotFoundError):
            self.out.rename(previous)
        self._partial.rename(self.out)
        shutil.rmtree(previous, ignore_errors=True)

    def _change(self) -> None:
        """Rename what was made into the site, and remove what is no longer part of it."""
        if self._files == self._before:
            return
        gone = [name for name in self._before if name not in self._files and _inside(name)]
        made = [name for name in self._files if self._files[name] is not self._before.get(name)]
        between = self._before | dict.fromkeys([*gone, *made], _UNFINISHED)
        self._index(between).replace(self.out / SITE_NAME)
        for folder in sorted(self._folders):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        for name in made:
            Path(f"{self._partial}/{name}").replace(f"{self.out}/{name}")
        for name in gone:
            path = self.out / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are still in it
                path.parent.rmdir()
                path.parent.parent.rmdir()
        self._index(self._files).replace(self.out / SITE_NAME)

    def _index(self, files: dict[str, list[Any]]) -> Path:
        path = self._partial / SITE_NAME
        path.write_text(json.dumps({"format": FORMAT, "files": files}, separators=(",", ":")))
        return path


def _inside(name: str) -> bool:
    return not any(part in ("", ".", "..") for part in name.split("/"))


def earlier_files(out: Path) -> dict[str, list[Any]]:
    """Return name -> [digest of inputs, bytes] of the site at `out`; empty without one.

    Raises:
        SettingsError: `out` holds something that is not a site, which must not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    found = read_json(out / SITE_NAME) if (out / SITE_NAME).is_file() else None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SettingsError(
            f"{out} exists and is not a site built by `sftknow board build` (it has no {SITE_NAME} "
            f"of format {FORMAT}), so it is not replaced. Give another --out, or remove it."
        )
    files = found.get("files")
    return files if isinstance(files, dict) else {}
