"""Where a training keeps what it needs to go on after it was stopped.

TRL's checkpoints lie in a hidden folder beside the model to be: `.NAME.training`. It belongs to
one set of settings, is held by one run, and goes when the model is there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sftknow_eval.artifacts import digest, locked, read_json, write_json
from sftknow_eval.errors import DataError
from sftknow_eval.record import TrainingRecord

_PLAN, _RESUMED = "plan.json", "resumed.json"
# TRL writes this file last.
_STATE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The hidden folder of a training.

    Attributes:
        every: a checkpoint is written after so many steps.
    """

    folder: Path
    every: int

    @classmethod
    def beside(cls, out: Path, every: int) -> Checkpoints:
        """Return the checkpoints of a model folder to be."""
        return cls(out.with_name(f".{out.name}.training"), every)

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is whole, if there is one."""
        found = []
        for state in self.folder.glob(f"checkpoint-*/{_STATE}"):
            with contextlib.suppress(DataError, TypeError, KeyError):
                found.append((int(read_json(state)["global_step"]), state.parent))
        return max(found)[1] if found else None

    def note_resumption(self, checkpoint: Path) -> None:
        """Note that a training goes on from a checkpoint."""
        step = int(checkpoint.name.rpartition("-")[2])
        write_json(self.folder / _RESUMED, [*self.resumptions(), step])

    def resumptions(self) -> tuple[int, ...]:
        """Return the steps after which the training was taken up again."""
        path = self.folder / _RESUMED
        return tuple(read_json(path)) if path.is_file() else ()

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def held(out: Path, plan: TrainingRecord, every: int) -> Iterator[Checkpoints]:
    """Hold the checkpoints of a training; those of other settings are removed.

    The folder stays when the block fails, so that the same training can go on.

    Args:
        out: the model folder to be.
        plan: what is to be trained.
        every: steps between checkpoints.

    Raises:
        SettingsError: another process is training this model.
    """
    checkpoints = Checkpoints.beside(out, every)
    wanted = digest(plan.settings())
    with locked(checkpoints.folder):
        path = checkpoints.folder / _PLAN
        if not path.is_file() or read_json(path) != wanted:
            for left in checkpoints.folder.glob("checkpoint-*"):
                shutil.rmtree(left)
            (checkpoints.folder / _RESUMED).unlink(missing_ok=True)
            write_json(path, wanted)
        yield checkpoints
        checkpoints.remove()
