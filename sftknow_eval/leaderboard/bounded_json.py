"""JSON from strangers: bounded in size and depth, no key twice, no NaN."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.contained import read_bytes

_MAX_DEPTH = 24
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def read_bounded(path: Path, root: Path, limit: int) -> Any:
    """Return the value in a JSON file.

    Args:
        path: the file.
        root: the folder that it must lie in.
        limit: bytes.

    Raises:
        SubmissionError: it is too large or too deep, not UTF-8 or JSON, has a key twice, or holds
            a number that is none.
    """
    return parse_bounded(read_bytes(path, root, limit), path.name)


def parse_bounded(content: bytes, name: str) -> Any:
    """Return the value of a JSON text; `name` is what errors call it.

    Raises:
        SubmissionError: as `read_bounded`, its size apart.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SubmissionError(f"{name} is not UTF-8 text: {error}.") from error
    if (depth := _depth(text)) > _MAX_DEPTH:
        raise SubmissionError(
            f"{name} is nested {depth} levels deep; at most {_MAX_DEPTH} are read."
        )
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"{name} is not JSON as it is read here: {error}.") from error


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
