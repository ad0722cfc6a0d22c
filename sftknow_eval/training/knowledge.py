"""A callback that watches what a model still knows, in anybody's training with transformers.

    watch = KnowledgeCallback(mastery="probe", data="DATA", every=50, max_lost=0.1)
    trainer = SFTTrainer(..., callbacks=[watch])
    watch.attach(trainer)
    trainer.train()

Before the first step it asks the model a small panel of facts as a base model is asked, each as
the completion of its relation's best template; from then on in the prompt style of the training.
What was known then and is not answered now is lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import TrainerCallback

from sftknow_eval.artifacts import digest
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.documents import Document
from sftknow_eval.evaluation.prompts import Style, check_style
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.training.panel import Measurement, answers, measured, panel_documents

logger = logging.getLogger(__name__)

# No name of a class: transformers would make the callback anew, without its panel.
_NAME = "sftknow-knowledge"


class KnowledgeCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Measures a mastery-stratified panel during a training; can stop it.

    Attributes:
        measurements: what was found, in the order of the steps.
        stopped_at: the step at which the training was stopped, if it was.
    """

    def __init__(
        self,
        *,
        mastery: str | Path,
        data: str | Path | None = None,
        style: str = "paper",
        style_before: str = "completion",
        split: str = "dev",
        per_stratum: int = 20,
        every: int | None = None,
        max_lost: float | None = None,
        limit_strata: Sequence[int] = (4,),
        batch_size: int = 32,
    ) -> None:
        """Choose the panel; the facts are read here, so that faults show before the training.

        Args:
            mastery: mastery table of the model that the training begins with.
            data: the facts; None for EntityQuestions.
            style: how the facts are asked during the training: paper, plain, chat, completion.
            style_before: how they are asked before it.
            split: of the panel. What stops a training should not be what it is tested on.
            per_stratum: at most so many facts of each domain and stratum.
            every: measure after so many steps; None for after each evaluation of the trainer.
            max_lost: stop when a larger share of what was known in `limit_strata` is lost; None
                to never stop.
            limit_strata: the strata that the limit is about; 4 are the mastered facts.
            batch_size: prompts at a time.

        Raises:
            SettingsError: impossible values; all are listed.
            DataError, MasteryError, TemplateError: the panel cannot be made.
        """
        _check(per_stratum, every, max_lost, limit_strata, batch_size)
        self._panels = [
            self._panel(mastery, data, split, check_style(asked), per_stratum)
            for asked in (style_before, style)
        ]
        self._every, self._max_lost = every, max_lost
        self._limit_strata, self._batch_size = tuple(limit_strata), batch_size
        self._trainer: Any = None
        self._before: list[bool] | None = None
        self.measurements: list[Measurement] = []
        self.stopped_at: int | None = None

    @staticmethod
    def _panel(
        mastery: str | Path, data: str | Path | None, split: str, style: Style, per_stratum: int
    ) -> list[Document]:
        asked = {"mastery": str(mastery), "split": split, "style": style}
        asked |= {"data": str(data)} if data else {}
        return panel_documents(read_settings(asked), per_stratum)

    def attach(self, trainer: Any) -> KnowledgeCallback:
        """Send what is measured to a trainer's loggers; add the callback to it if need be.

        transformers tells a callback nothing of its trainer: without this, measurements are
        in `state.log_history` and in `measurements` only.
        """
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Ask the model before it is trained; a run that goes on from a checkpoint did so then."""
        if self._before is not None:
            return
        self._before = self._remembered(state)
        if self._before is None:
            if state.global_step:
                logger.warning(
                    "The training goes on from step %d, and its checkpoint does not hold what was "
                    "known before it: what is known now counts as known before.",
                    state.global_step,
                )
            self._before = self._asked(self._panels[0], given)
        # Checkpoints take the trainer's state along.
        state.stateful_callbacks[_NAME] = {"panel": self._digest(), "before": self._before}
        self._measure(state, control, given)

    def _remembered(self, state: Any) -> list[bool] | None:
        kept = state.stateful_callbacks.get(_NAME) if state.global_step else None
        if not isinstance(kept, dict) or kept.get("panel") != self._digest():
            return None
        return [bool(value) for value in kept["before"]]

    def _digest(self) -> str:
        return digest([[d["id"], d["prompt"]] for panel in self._panels for d in panel])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure every so many steps."""
        if self._every and state.global_step % self._every == 0:
            self._measure(state, control, given)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure after an evaluation, if no number of steps was given."""
        if self._every is None and self._before is not None:
            self._measure(state, control, given)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure the trained model, unless its last step was."""
        if self._before is not None and self.measurements[-1].step != state.global_step:
            self._measure(state, control, given)

    def _asked(self, panel: list[Document], given: dict[str, Any]) -> list[bool]:
        tokenizer = given.get("processing_class") or given.get("tokenizer")
        if tokenizer is None:
            raise SettingsError(
                "The trainer has no tokenizer, so the panel cannot be asked. Give it one: "
                "Trainer(..., processing_class=tokenizer)."
            )
        return answers(given["model"], tokenizer, panel, self._batch_size)

    def _measure(self, state: Any, control: Any, given: dict[str, Any]) -> None:
        assert self._before is not None
        panel = self._panels[1]
        now = self._asked(panel, given)
        found = measured(state.global_step, panel, self._before, now)
        self.measurements.append(found)
        self._log(state, control, found.metrics())
        share = found.lost_share(self._limit_strata)
        # Before the first step, what is not answered is the form that is not known yet.
        beyond = state.global_step > 0 and self._max_lost is not None
        if beyond and share is not None and share > self._max_lost:  # type: ignore[operator]
            control.should_training_stop = True
            self.stopped_at = state.global_step
            logger.warning(
                "Stopped at step %d: %.1f%% of what was known in stratum %s is lost, more than "
                "the %.1f%% allowed.",
                *(state.global_step, 100 * share, ", ".join(map(str, self._limit_strata))),
                100 * float(self._max_lost or 0),
            )

    def _log(self, state: Any, control: Any, metrics: dict[str, float]) -> None:
        if self._trainer is None:
            if len(self.measurements) == 1:
                logger.warning(
                    "KnowledgeCallback.attach(trainer) was not called: measurements go into the "
                    "trainer's log history, not to its loggers."
                )
            state.log_history.append({**metrics, "step": state.global_step})
            return
        wanted = control.should_log
        # The base's method: that of TRL adds its own averages and begins them anew.
        transformers.Trainer.log(self._trainer, dict(metrics))
        # Logging takes back the request for the trainer's own entry of this step.
        control.should_log = wanted


def _check(
    per_stratum: int,
    every: int | None,
    max_lost: float | None,
    limit_strata: Sequence[int],
    batch_size: int,
) -> None:
    faults = [
        f"{name} is {value}, but has to be at least 1"
        for name, value in (
            *(("per_stratum", per_stratum), ("every", every), ("batch_size", batch_size)),
        )
        if value is not None and value < 1
    ]
    if max_lost is not None and not (0 <= max_lost <= 1 and math.isfinite(max_lost)):
        faults.append(f"max_lost is {max_lost}, but has to be a share from 0 to 1")
    if not limit_strata or not set(limit_strata) <= set(range(5)):
        faults.append(f"limit_strata is {tuple(limit_strata)}, but has to name some of 0 to 4")
    if faults:
        raise SettingsError("KnowledgeCallback: " + "; ".join(faults) + ".")
