"""The parts of a report: each is kept in a folder of its own, or missing with the reason."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sftknow_eval.artifacts import digest, read_json, write_json
from sftknow_eval.errors import OutOfSpace, SftknowError

logger = logging.getLogger(__name__)
_INPUTS = "inputs.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A part's value, or why there is none.

    Attributes:
        value: what was measured; None where `missing` says why.
        missing: the reason in words; None where there is a value.
    """

    value: T | None
    missing: str | None = None


def is_finished(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Return whether a part was made of these inputs and is there."""
    path = folder / _INPUTS
    known = read_json(path) if path.is_file() else {}
    return bool(known.get("finished")) and known["digest"] == digest(inputs)


def kept_part(
    folder: Path,
    inputs: Mapping[str, Any],
    make: Callable[[Path], None],
    read: Callable[[Path], T],
    *,
    required: bool = False,
) -> Part[T]:
    """Return a part: as an earlier run left it, made now, or missing.

    Args:
        folder: where it is kept.
        inputs: all that decides it; a folder of other inputs is made anew.
        make: measures and writes into the folder. What it wrote of a run that was stopped is
            still there when it runs again with the same inputs.
        read: reads what `make` wrote.
        required: an error of `make` is raised, as there is no report without this part.
    """
    key = digest(inputs)
    known = read_json(folder / _INPUTS) if (folder / _INPUTS).is_file() else {}
    if folder.exists() and known.get("digest") != key:
        shutil.rmtree(folder)
    if not is_finished(folder, inputs):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _INPUTS, {"digest": key, "inputs": inputs, "finished": False})
        try:
            make(folder)
        except SftknowError as error:
            if required or isinstance(error, OutOfSpace):
                raise
            logger.warning("%s: %s", folder.name, error)
            return Part(None, str(error))
        write_json(folder / _INPUTS, {"digest": key, "inputs": inputs, "finished": True})
    return Part(read(folder))
