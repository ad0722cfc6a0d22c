"""A step as its action sees it: locations resolved, a folder to fill."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.errors import SftknowError

if TYPE_CHECKING:
    from sftknow_eval.evaluation.evaluate import Evaluation
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.table import MasteryTable

Progress = Callable[[str, int, int], None]


class LeftOut(SftknowError):
    """A run that cannot be made from these facts; the study goes on without it."""


@dataclass(frozen=True)
class Job:
    """A step to be done.

    Attributes:
        inputs: locations by role, as paths or hub ids.
        settings: what else decides the output.
        out: the folder to be made.
        root: the study's folder.
        threads: how many cores the step may use.
        progress: told (what, done, total).
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    out: Path
    root: Path
    threads: int
    progress: Progress

    @property
    def metadata(self) -> dict[str, str]:
        """Return what tells the tasks which facts and strata are meant."""
        return {name: self.inputs[name] for name in ("mastery", "data") if name in self.inputs}

    @property
    def asking(self) -> dict[str, Any]:
        """Return how a model is asked, as requests of evaluations and sweeps take it."""
        names = ("backend", "engine_args", "batch_size", "limit")
        return {name: self.settings[name] for name in names}

    def facts(self) -> tuple[Dataset, MasteryTable]:
        """Return facts and mastery table; read once a process."""
        return _facts(self.inputs.get("data"), self.inputs["mastery"])

    def ask(
        self,
        model: str,
        split: str,
        out: Path,
        *,
        style: str | None = None,
        restored: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Evaluate a model beside its base into a folder, as `sftknow eval` does.

        Args:
            model: folder or hub id.
            split: of the facts.
            out: the folder.
            style: prompt style; None for the one recorded.
            restored: what goes back to the base while it loads (see `on_load.Choice`).
        """
        from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate

        base = self.inputs["base"]
        asking = self.asking
        if restored is not None:
            asking["engine_args"] = {**asking["engine_args"], "base": base, **restored}
        return evaluate(
            EvaluationRequest(
                finetuned=model,
                base=base,
                metadata={**self.metadata, "split": split},
                style=style,  # type: ignore[arg-type]  # checked when the file was read
                **asking,
            ),
            out,
        )


@functools.lru_cache(maxsize=4)
def _facts(data: str | None, mastery: str) -> tuple[Dataset, MasteryTable]:
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.table import MasteryTable

    return open_dataset(data), MasteryTable.read(mastery)
