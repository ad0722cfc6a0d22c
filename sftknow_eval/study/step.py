"""One step of a study, and the journal that says which steps are finished.

A step's output is the folder of its name. Its digest is made of everything that decides the
output: its kind, its settings, where its inputs come from and the digests of the steps that
made them. A step is finished when the journal holds its digest; a change anywhere changes the
digests of what depends on it, and of nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sftknow_eval import __version__
from sftknow_eval.artifacts import digest, read_json, write_json
from sftknow_eval.errors import DataError

Kind = str
Status = Literal["begun", "done", "failed", "left out", "blocked"]

_FORMAT = "sftknow-step/1"
JOURNAL = "steps"
# What begins so is a path inside the study's folder, and the name of the step that makes it.
INSIDE = "./"


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be done once.

    Attributes:
        name: its output's path within the study's folder.
        kind: which function does it.
        inputs: locations by role; those that begin with `./` lie in the study's folder.
        settings: what else decides the output; ready for JSON.
        needs: names of the steps that have to be done before.
        after: names of steps that have to have ended before, whatever became of them.
        run: id of the run that it belongs to, if it belongs to one.
        gpu: whether it goes into the GPU's queue in a study for GPUs.
    """

    name: str
    kind: Kind
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    run: str | None = None
    gpu: bool = True

    def digest(self, digests: Mapping[str, str]) -> str:
        """Return what identifies the output, given the digests of the steps before."""
        return digest(
            {
                "version": __version__,
                "kind": self.kind,
                "name": self.name,
                "inputs": dict(self.inputs),
                "settings": dict(self.settings),
                "needs": {name: digests[name] for name in (*self.needs, *self.after)},
            }
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says about a step.

    Attributes:
        reason: why it failed or was left out.
        seconds, cpu_seconds: what it took, in the process that did it.
        reused: its result was found in the cache, so that its times say nothing.
    """

    digest: str
    status: Status
    reason: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reused: bool = False


def digests(steps: Mapping[str, Step]) -> dict[str, str]:
    """Return every step's digest; `steps` stand in an order in which they could run."""
    found: dict[str, str] = {}
    for name, step in steps.items():
        found[name] = step.digest(found)
    return found


class Journal:
    """The finished steps, one small file each, so that nothing is lost when a study is killed."""

    def __init__(self, root: Path) -> None:
        self._folder = root / JOURNAL

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '~')}.json"

    def read(self, name: str) -> Entry | None:
        """Return what is known of a step; None when nothing, or nothing readable, is."""
        with contextlib.suppress(DataError, TypeError):
            value = read_json(self._path(name))
            if isinstance(value, dict) and value.pop("format", None) == _FORMAT:
                value.pop("name", None)
                return Entry(**value)
        return None

    def write(self, name: str, entry: Entry) -> None:
        """Note what became of a step."""
        values = {key: getattr(entry, key) for key in Entry.__slots__}
        write_json(self._path(name), {"format": _FORMAT, "name": name, **values})

    def forget(self, name: str) -> None:
        """Drop what is known of a step."""
        self._path(name).unlink(missing_ok=True)
