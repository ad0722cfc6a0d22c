"""The optimisation's settings, in one place for options, strategies and records."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from sftknow_eval.errors import SettingsError

Dtype = Literal["float32", "bfloat16"]
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """The optimisation; the defaults are the paper's.

    Attributes:
        batch_size: sequences in a step, over all processes and accumulated batches.
        warmup: steps of linear warm-up; below 1, their share of all steps.
        max_steps: stop after this many steps; None for `epochs`.
        dtype: of the weights while they are trained; the optimiser's state has the same.
        autocast: compute in bfloat16 while the weights stay as they are (for GPUs).
        save_dtype: of the saved weights; None for `dtype`.
        gradient_checkpointing: trade time for memory; the result is the same.

    Source: section 3.3, appendix A.
    Differs: the paper does not state weight decay, warm-up, clipping and the dtypes.
    """

    learning_rate: float = 1e-5
    epochs: float = 1.0
    batch_size: int = 8
    lr_scheduler: str = "cosine"
    weight_decay: float = 0.0
    warmup: float = 0.0
    max_grad_norm: float = 1.0
    max_steps: int | None = None
    dtype: Dtype = "float32"
    autocast: bool = False
    save_dtype: Dtype | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values, all of them at once."""
        positive = ("learning_rate", "epochs", "batch_size", "max_steps")
        not_negative = ("weight_decay", "warmup", "max_grad_norm")
        values = dataclasses.asdict(self)
        faults = [
            f"{name} is {values[name]}, but has to be above 0"
            for name in positive
            if values[name] is not None and not 0 < values[name] < math.inf
        ]
        faults += [
            f"{name} is {values[name]}, but may not be negative"
            for name in not_negative
            if not 0 <= values[name] < math.inf
        ]
        if self.lr_scheduler not in SCHEDULERS:
            faults.append(f"lr_scheduler is '{self.lr_scheduler}', none of {', '.join(SCHEDULERS)}")
        for name in ("dtype", "save_dtype"):
            if values[name] not in (*DTYPES, None):
                faults.append(f"{name} is '{values[name]}', none of float32, bfloat16")
        if faults:
            raise SettingsError("Training settings: " + "; ".join(faults) + ".")

    @property
    def saved_dtype(self) -> Dtype:
        """Return the dtype of the weights as they will be saved."""
        return self.save_dtype or self.dtype

    def steps(self, examples: int) -> int:
        """Return the number of optimisation steps for so many examples."""
        batches = math.ceil(examples / self.batch_size)
        return self.max_steps or math.ceil(batches * self.epochs)
