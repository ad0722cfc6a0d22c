"""Supervised fine-tuning through TRL's trainer, of all weights or of an adapter of PEFT.

TRL gets sequences that are already encoded and labelled (`encode.py`), so that what the model
is trained on is decided here and not by a template, an added token or a truncation rule.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.errors import MissingDependency, ModelError, SettingsError
from sftknow_eval.training.checkpoints import Checkpoints
from sftknow_eval.training.processes import Processes, refuse_idle_gpus
from sftknow_eval.training.settings import TrainSettings

if TYPE_CHECKING:
    from sftknow_eval.training.watch import OnStep

# The loss curve keeps about this many points, however long the training.
_CURVE_POINTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        examples: `input_ids` and `labels` of each sequence.
        seed: orders the batches, and begins adapters.
        trainer: further settings of TRL's `SFTConfig`.
        adapter: PEFT's method and its settings; None to train all weights.
        merged: whether the adapter will be merged into the weights.
        checkpoints: where to keep them; None for none.
    """

    examples: Sequence[dict[str, list[int]]]
    settings: TrainSettings
    seed: int
    trainer: Mapping[str, Any] = field(default_factory=dict)
    adapter: tuple[str, Mapping[str, Any]] | None = None
    merged: bool = False
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    Attributes:
        trainer: TRL's, with the trained model.
        losses: (step, loss) pairs.
        trained_parameters: weights that were trained, of `total_parameters`.
        resumed_at: the steps after which the training was taken up again.
    """

    trainer: Any
    losses: list[tuple[int, float]]
    trained_parameters: int
    total_parameters: int
    resumed_at: tuple[int, ...]


def require_trl(*more: str) -> None:
    """Check that the training extra is installed.

    Args:
        more: packages that are needed besides TRL's own.

    Raises:
        MissingDependency: TRL (or a package that it needs) is missing.
    """
    for package in ("trl", "accelerate", "datasets", *more):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "Training", 'pip install "sftknow-eval[train]"')


def train(
    load: Callable[[], Any], tokenizer: Any, job: Job, on_step: OnStep | None = None
) -> Trained:
    """Train a model in place, or an adapter on it.

    Args:
        load: returns a transformers causal language model, in the dtype to train it in. It is
            called when the processes know each other: weights that will be spread over them
            (FSDP, ZeRO-3) then need not be loaded by each.
        tokenizer: its tokenizer.
        job: what to train on and how.
        on_step: called with (steps done, steps in all, loss) as training goes on.

    Raises:
        TrainingDiverged: a loss or a weight is no number; the model is then of no use.
        ModelError: the GPU ran out of memory.
        SettingsError: TRL or PEFT refuse a setting, or one process sees several GPUs.
    """
    from sftknow_eval.training.watch import check_finite

    processes = Processes.of_environment()
    refuse_idle_gpus(processes)
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="sftknow-train-") as scratch:
        folder = job.checkpoints.folder if job.checkpoints else Path(scratch)
        args = _arguments(job, processes, folder)
        # The first process may just have removed checkpoints of other settings.
        args.distributed_state.wait_for_everyone()
        with _explained():
            trainer = _trainer(load(), tokenizer, job, args, on_step)
            sizes = [(_size(p), p.requires_grad) for p in trainer.model.parameters()]
            start = _checkpoint(job, processes)
            with _few_to_collect():
                trainer.train(resume_from_checkpoint=start)
        check_finite(trainer.model, job.settings.learning_rate)
    return Trained(
        trainer,
        [(e["step"], float(e["loss"])) for e in trainer.state.log_history if "loss" in e],
        sum(size for size, trains in sizes if trains),
        sum(size for size, _ in sizes),
        job.checkpoints.resumptions() if job.checkpoints else (),
    )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    import torch

    try:
        yield
    except ImportError as error:
        raise SettingsError(f"The strategy's settings need what is missing: {error}") from error
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The GPU ran out of memory in training: {error}. Try --gradient-checkpointing, "
            "--dtype bfloat16 or a smaller --batch-size."
        ) from error


def _checkpoint(job: Job, processes: Processes) -> str | None:
    """Return the checkpoint to go on from, if there is one, and note that it is."""
    found = job.checkpoints.newest() if job.checkpoints else None
    if job.checkpoints and found and processes.is_first:
        job.checkpoints.note_resumption(found)
    return str(found) if found else None


def _size(weight: Any) -> int:
    # ZeRO-3 leaves empty places behind that remember their size.
    return int(getattr(weight, "ds_numel", weight.numel()))


def _arguments(job: Job, processes: Processes, folder: Path) -> Any:
    import torch
    from trl import SFTConfig

    settings = job.settings
    steps = settings.steps(len(job.examples))
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": processes.rows(
            settings, int(job.trainer.get("gradient_accumulation_steps", 1))
        ),
        "lr_scheduler_type": settings.lr_scheduler,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": settings.autocast,
        "seed": job.seed,
        "completion_only_loss": True,
        "max_length": None,
        "packing": False,
        **_saving(job.checkpoints, every := max(1, steps // _CURVE_POINTS)),
    }
    defaults: dict[str, Any] = {
        # Said plainly, as bfloat16 is refused on a CPU that was only fallen back to.
        "use_cpu": not torch.accelerator.is_available(),
        "optim": "adamw_torch",
        "logging_steps": every,
        # The filter would hide a diverging loss behind the mean of the losses before it.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "log_level": "error",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    try:
        return SFTConfig(**{**defaults, **job.trainer, **ours})
    except (ValueError, TypeError, ImportError) as error:
        raise SettingsError(
            f"TRL refuses the strategy's settings of the trainer: {error}"
        ) from error


def _saving(checkpoints: Checkpoints | None, logging_steps: int) -> dict[str, Any]:
    if checkpoints is None:
        return {"save_strategy": "no"}
    # At a point of the loss curve, so that a resumed run's curve is the same.
    steps = -(-checkpoints.every // logging_steps) * logging_steps
    return {"save_strategy": "steps", "save_steps": steps, "save_total_limit": 1}


def _trainer(model: Any, tokenizer: Any, job: Job, args: Any, on_step: OnStep | None) -> Any:
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from sftknow_eval.training.save import check_mergeable
    from sftknow_eval.training.watch import Watch

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    try:
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list([dict(example) for example in job.examples]),
            processing_class=tokenizer,
            # A collator of our own choice keeps TRL from writing a padding token into the configs.
            data_collator=DataCollatorForLanguageModeling(pad_token_id=pad),
            callbacks=[Watch(on_step)],
            peft_config=_peft_config(*job.adapter) if job.adapter else None,
        )
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise SettingsError(f"TRL or PEFT refuse the strategy's settings: {error}") from error
    if job.merged:
        check_mergeable(trainer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _peft_config(kind: str, settings: Mapping[str, Any]) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    try:
        return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](task_type="CAUSAL_LM", **settings)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"PEFT refuses the settings of the {kind} adapter: {error}") from error


@contextlib.contextmanager
def _few_to_collect() -> Iterator[None]:
    """Keep what is in memory now out of garbage collections meanwhile.

    accelerate collects at the start of every training, which with all of torch, transformers and
    TRL in memory takes a third of the time of a small one.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
