"""Which action does which kind of step, and where it writes.

Actions that write whole folders, or go on where they stopped, do so in place; the folder of
any other appears only when it is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import atomic_folder
from sftknow_eval.study import comparing, making, measuring, showing
from sftknow_eval.study.job import Job, Progress
from sftknow_eval.study.step import INSIDE

Action = Callable[[Job], bool | None]

_IN_PLACE: dict[str, Action] = {
    "world": making.world,
    "probe": making.probe,
    "train": making.train,
    "sweep": measuring.sweep,
    "other-task": measuring.other_task,
    "echo": making.echo,
}
_WHOLE: dict[str, Action] = {
    "interpolate": making.interpolate,
    "evaluate": measuring.evaluate,
    "restored": measuring.restored,
    "layers": measuring.layers,
    "interpolation-curve": measuring.interpolation_curve,
    "null-row": measuring.null_row,
    "tokens": measuring.tokens,
    "weights": measuring.weights,
    "statistics": comparing.statistics,
    "report": showing.report,
    "board": showing.board,
}


def perform(message: Mapping[str, Any], root: Path, progress: Progress) -> bool:
    """Do the step that a message describes; return whether its result was there already.

    Raises:
        LeftOut: it cannot be made from these facts.
        SftknowError: it failed.
    """
    inputs = {
        role: str(root / place.removeprefix(INSIDE)) if place.startswith(INSIDE) else place
        for role, place in message["inputs"].items()
    }
    out, settings, threads = root / message["name"], message["settings"], message["threads"]
    if action := _IN_PLACE.get(message["kind"]):
        out.parent.mkdir(parents=True, exist_ok=True)
        return bool(action(Job(inputs, settings, out, root, threads, progress)))
    shutil.rmtree(out, ignore_errors=True)
    with atomic_folder(out) as partial:
        job = Job(inputs, settings, partial, root, threads, progress)
        return bool(_WHOLE[message["kind"]](job))
