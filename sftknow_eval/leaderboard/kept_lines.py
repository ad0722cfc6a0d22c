"""A file of values by key, one a line: what did not change is read, and is not written out anew.

Values that come new are appended. Where one goes or changes the file is written anew, as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from sftknow_eval.artifacts import atomic_path

_FORMAT = "sftknow-kept/1"


class KeptLines:
    """Values of an earlier build, of which this build's are kept.

    Args:
        path: of the file; None keeps nothing.
        made_by: what the values depend on besides their keys: those of another are left.
        fresh: leave all earlier ones.
    """

    def __init__(self, path: Path | None, made_by: str, *, fresh: bool = False) -> None:
        self._path = path
        self._head = f"{_FORMAT} {made_by}"
        self._before = {} if fresh else self._read()
        self._now: dict[str, str] = {}
        self._new: dict[str, str] = {}

    def get(self, key: str) -> Any | None:
        """Return the earlier value of a key, which is kept on; None without one."""
        try:
            return from_json(self._before[key]) if self.text(key) else None
        except ValueError:  # damaged, or a text that is no Unicode: made again
            return None

    def put(self, key: str, value: Any) -> None:
        """Keep a value; its key holds no space."""
        self.put_text(key, json.dumps(value, separators=(",", ":")))

    def text(self, key: str) -> str | None:
        """Return the earlier text of a key, which is kept on; None without one."""
        text = self._before.get(key)
        if text is not None:
            self._now[key] = text
        return text

    def put_text(self, key: str, text: str) -> None:
        """Keep a text of one line; its key holds no space."""
        self._now[key] = self._new[key] = text

    def write(self) -> None:
        """Write all values that were read or made in this build, if they are others than before."""
        if self._path is None:
            return
        if not self._before or self._new.keys() & self._before or self._before.keys() - self._now:
            with atomic_path(self._path) as partial:
                partial.write_bytes(f"{self._head}\n".encode() + _lines(self._now))
        elif self._new:
            with self._path.open("ab") as file:
                file.write(_lines(self._new))
                os.fsync(file.fileno())

    def _read(self) -> dict[str, str]:
        if self._path is None or not self._path.is_file():
            return {}
        try:
            head, *lines = self._path.read_bytes().decode().split("\n")
        except UnicodeDecodeError:
            return {}
        if head != self._head or not lines or lines.pop():
            return {}  # of other source, or cut off by a kill: as good as none
        found = (line.partition(" ") for line in lines)
        return {key: text for key, _, text in found}


def _lines(values: Mapping[str, str]) -> bytes:
    return "".join(f"{key} {text}\n" for key, text in values.items()).encode()
