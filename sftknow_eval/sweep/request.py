"""What a sweep is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.evaluation.install import TASK_FOLDER
from sftknow_eval.mastery.backends import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What to sweep over, and how the model is asked.

    Attributes:
        base, finetuned: local folder or hub id.
        ratios: percent, each once.
        tasks: of lm-eval, ours or any others.
        metadata: what lm-eval's `--metadata` would hold.
        restoration: further arguments of `on_load.Choice`: region, layers, order, ...
        engine_args: further arguments of lm-eval's model class.
        num_fewshot: None for each task's own.
        limit: at most this many documents of each task.
        include_path: folder with task files of the user's own.
    """

    base: str
    finetuned: str
    ratios: Sequence[float]
    tasks: Sequence[str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    restoration: Mapping[str, Any] = field(default_factory=dict)
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    include_path: Path | None = None

    @property
    def fact_tasks(self) -> list[str]:
        """Those of the tasks that are ours."""
        return [task for task in self.tasks if task.startswith(TASK_FOLDER)]

    @property
    def other_tasks(self) -> list[str]:
        """Those of the tasks that are not ours."""
        return [task for task in self.tasks if not task.startswith(TASK_FOLDER)]

    @property
    def task_metadata(self) -> dict[str, Any]:
        """Return what the tasks see: the model's arguments and the metadata."""
        return {"pretrained": self.finetuned, "base": self.base, **self.metadata}


@dataclass(frozen=True, slots=True)
class FactSet:
    """Facts to ask at every ratio, such as those of a split.

    Attributes:
        metadata: what selects them, beside the request's own metadata.
        ratios: those of the request's at which they are asked; None for all.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    ratios: Sequence[float] | None = None

    def takes(self, ratio: float) -> bool:
        """Say whether these facts are asked at a ratio."""
        return self.ratios is None or ratio in self.ratios
