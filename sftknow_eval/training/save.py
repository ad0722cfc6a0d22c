"""A trained model, or its adapter, written as a whole folder by the first process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.training.settings import Dtype


def save_model(trainer: Any, folder: Path, dtype: Dtype) -> None:
    """Write all weights in `dtype`; an adapter is merged into them.

    Every process has to call it; the first one writes.
    """
    import torch

    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.accelerator.is_main_process:
        return
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
        weights = model.state_dict()
    model.save_pretrained(folder, state_dict=_cast(weights, getattr(torch, dtype)))
    config = read_json(folder / "config.json")
    if config.get("dtype") != dtype:
        write_json(folder / "config.json", config | {"dtype": dtype})


def save_adapter(trainer: Any, folder: Path, base: str, revision: str | None) -> str:
    """Write an adapter that names its base; return the dtype of its weights.

    Every process has to call it; the first one writes.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    config = model.peft_config[model.active_adapter]
    config.base_model_name_or_path, config.revision = base, revision
    if trainer.accelerator.is_main_process:
        # Whether an embedding was resized would be looked up on the hub.
        model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in
    trains = next(weight for weight in model.parameters() if weight.requires_grad)
    return str(trains.dtype).removeprefix("torch.")


def check_mergeable(trainer: Any) -> None:
    """Refuse to merge an adapter into a base whose weights are spread over processes.

    Raises:
        SettingsError: they are.
    """
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise SettingsError(
            f"The strategy merges its adapter into the base, which {kind} spreads over processes. "
            "Give the adapter 'save: adapter', or train without it."
        )


def _cast(weights: dict[str, Any], dtype: Any) -> dict[str, Any]:
    # What is tied stays tied: one tensor under two names is cast once.
    cast: dict[tuple[int, Any], Any] = {}
    found = {}
    for name, weight in weights.items():
        key = (weight.data_ptr(), weight.shape)
        if key not in cast:
            kept = weight.detach().to(device="cpu")
            cast[key] = kept.to(dtype) if kept.is_floating_point() else kept
        found[name] = cast[key]
    return found
