"""What is noticed while a training goes on: its loss, its progress, and that it diverged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from sftknow_eval.errors import TrainingDiverged

OnStep = Callable[[int, int, float], None]


class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Reports progress, and ends a training whose loss is no longer a number."""

    def __init__(self, on_step: OnStep | None) -> None:
        self._on_step = on_step

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Look at a loss that was logged."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise diverged(f"the loss is {loss} at step {state.global_step}", args.learning_rate)
        if self._on_step:
            self._on_step(state.global_step, state.max_steps, loss)


def check_finite(model: Any, learning_rate: float) -> None:
    """Refuse a model with a weight that is no number.

    Raises:
        TrainingDiverged: names the weight.
    """
    import torch

    for name, weight in model.named_parameters():
        # Of a weight that is spread over processes, each looks at its own part.
        part = weight.to_local() if hasattr(weight, "to_local") else weight
        if not torch.isfinite(part).all():
            raise diverged(f"the weight '{name}' is no longer finite", learning_rate)


def diverged(what: str, learning_rate: float) -> TrainingDiverged:
    """Return the error for a training that went astray."""
    return TrainingDiverged(
        f"The training diverged: {what}. Nothing was saved. Use a lower learning rate (it was "
        f"{learning_rate:g}), some warm-up, or float32 weights."
    )
