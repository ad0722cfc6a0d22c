"""Plain supervised fine-tuning of all weights, through TRL's trainer.

TRL gets sequences that are already encoded and labelled (`encode.py`), so that what the model
is trained on is decided here and not by a template, an added token or a truncation rule.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sftknow_eval.errors import MissingDependency, ModelError, SettingsError

Dtype = Literal["float32", "bfloat16"]
OnStep = Callable[[int, int, float], None]

SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup")
# The loss curve keeps about this many points, however long the training.
_CURVE_POINTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """The optimisation; the defaults are the paper's.

    Attributes:
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
            if values[name] not in ("float32", "bfloat16", None):
                faults.append(f"{name} is '{values[name]}', none of float32, bfloat16")
        if faults:
            raise SettingsError("Training settings: " + "; ".join(faults) + ".")

    @property
    def saved_dtype(self) -> Dtype:
        """Return the dtype of the weights as they will be saved."""
        return self.save_dtype or self.dtype


def require_trl() -> None:
    """Check that the training extra is installed.

    Raises:
        MissingDependency: TRL (or a package that it needs) is missing.
    """
    for package in ("trl", "accelerate", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "Training", 'pip install "sftknow-eval[train]"')


def train(
    model: Any,
    tokenizer: Any,
    examples: Sequence[dict[str, list[int]]],
    settings: TrainSettings,
    *,
    seed: int,
    on_step: OnStep | None = None,
) -> list[tuple[int, float]]:
    """Train `model` in place on encoded examples; return its loss curve as (step, loss).

    Args:
        model: a transformers causal language model, in the dtype to train it in.
        tokenizer: its tokenizer.
        examples: `input_ids` and `labels` of each example.
        settings: of the optimisation.
        seed: orders the batches.
        on_step: called with (steps done, steps in all, loss) as training goes on.

    Raises:
        ModelError: the training diverged (a loss or a weight that is no number), or the GPU ran
            out of memory; `model` is then of no use.
        SettingsError: more than one GPU or process.
    """
    import torch

    _refuse_several_devices()
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="sftknow-train-") as scratch:
        watch = _watch(on_step)
        trainer = _trainer(model, tokenizer, examples, settings, seed, scratch, watch)
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"The GPU ran out of memory in training: {error}. Try --gradient-checkpointing, "
                "--dtype bfloat16 or a smaller --batch-size."
            ) from error
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise _diverged(f"the weight '{name}' is no longer finite", settings.learning_rate)
    return [(int(entry["step"]), float(entry["loss"])) for entry in watch.entries]


def _trainer(
    model: Any,
    tokenizer: Any,
    examples: Sequence[dict[str, list[int]]],
    settings: TrainSettings,
    seed: int,
    scratch: str,
    watch: Any,
) -> Any:
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    steps = settings.max_steps or math.ceil(
        math.ceil(len(examples) / settings.batch_size) * settings.epochs
    )
    args = SFTConfig(
        output_dir=scratch,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        lr_scheduler_type=settings.lr_scheduler,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=settings.autocast,
        # Said plainly, as bfloat16 is refused on a CPU that was only fallen back to.
        use_cpu=not torch.accelerator.is_available(),
        optim="adamw_torch",
        seed=seed,
        completion_only_loss=True,
        max_length=None,
        packing=False,
        logging_steps=max(1, steps // _CURVE_POINTS),
        # The filter would hide a diverging loss behind the mean of the losses before it.
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([dict(example) for example in examples]),
        processing_class=tokenizer,
        # A collator of our own choice keeps TRL from writing a padding token into the configs.
        data_collator=DataCollatorForLanguageModeling(pad_token_id=pad),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _watch(on_step: OnStep | None) -> Any:
    """Return a callback that keeps the loss curve, reports progress and stops a divergence."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.entries: list[dict[str, float]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise _diverged(f"the loss is {loss} at step {state.global_step}", None)
            self.entries.append({"step": state.global_step, "loss": loss})
            if on_step:
                on_step(state.global_step, state.max_steps, loss)

    return Watch()


def _diverged(what: str, learning_rate: float | None) -> ModelError:
    rate = "" if learning_rate is None else f" (it was {learning_rate:g})"
    return ModelError(
        f"The training diverged: {what}. Nothing was saved. Use a lower --learning-rate{rate}, "
        "some --warmup, or --dtype float32."
    )


def _refuse_several_devices() -> None:
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise SettingsError(
            f"sftknow train runs in one process, but was started in {processes} (WORLD_SIZE). "
            "Start it without accelerate or torchrun."
        )
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        raise SettingsError(
            f"sftknow train uses one GPU, but sees {torch.cuda.device_count()}. Choose one with "
            "CUDA_VISIBLE_DEVICES=0 before the command."
        )


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers and TRL off the terminal, and TRL from reporting its use, meanwhile."""
    from huggingface_hub import constants
    from transformers.utils import logging

    log: Any = logging
    level, bars, telemetry_off = (
        log.get_verbosity(),
        log.is_progress_bar_enabled(),
        constants.HF_HUB_DISABLE_TELEMETRY,
    )
    log.set_verbosity_error()
    log.disable_progress_bar()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off
