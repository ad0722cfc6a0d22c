"""lm-eval's transformers model, restored while it loads, and again in place.

`--model sftknow-hf --model_args pretrained=FT,base=BASE,ratio=20` takes all arguments of
lm-eval's `hf`. transformers reads a checkpoint as a mapping of lazy tensors; here each of
them is restored at the moment it is read, under its name in the file, before it is renamed,
fused, cast or placed. All of that stays transformers' own affair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lm_eval.api.registry import register_model
from safetensors import safe_open
from transformers import core_model_loading, modeling_utils

from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.models import is_adapter, locate_model
from sftknow_eval.restoration.canary import Expectation, Rows
from sftknow_eval.restoration.ended import EndedEngine
from sftknow_eval.restoration.greedy import GreedyHF
from sftknow_eval.restoration.on_load import Blender, Choice, LoadReport

NAME = "sftknow-hf"
# Arguments of lm-eval's `hf` that put other weights in the place of the checkpoint's.
_OTHER_WEIGHTS = ("peft", "delta", "autogptq", "gptqmodel", "gguf_file", "quantization_config")


class _Lazy:
    """A lazy tensor of safetensors that is restored when transformers reads it."""

    def __init__(self, name: str, stored: Any, blender: Blender) -> None:
        self._name, self._stored, self._blender = name, stored, blender
        self.get_dtype, self.get_shape = stored.get_dtype, stored.get_shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._blender.blend(self._name, self._stored[...])[index]


@contextlib.contextmanager
def blended_loading(blender: Callable[[Any], Blender]) -> Iterator[list[Any]]:
    """Restore what transformers loads within the block; yield the list of its load settings.

    Args:
        blender: returns the blender for a model without weights.
    """
    genuine = core_model_loading.convert_and_load_state_dict_in_model
    settings: list[Any] = []

    def load(*, model: Any, state_dict: Mapping[str, Any], load_config: Any, **more: Any) -> Any:
        settings.append(load_config)
        chosen = blender(model)
        lazy = {name: _Lazy(name, stored, chosen) for name, stored in state_dict.items()}
        return genuine(model=model, state_dict=lazy, load_config=load_config, **more)

    # transformers has no hook for this. Should a release call another function, nothing is
    # restored, and `finish` says so.
    with (
        # One tensor at a time is restored: threads that read ahead would wait for each other.
        mock.patch.dict(os.environ, {"HF_DEACTIVATE_ASYNC_LOAD": "1"}),
        mock.patch.object(modeling_utils, "convert_and_load_state_dict_in_model", load),
    ):
        yield settings


@register_model(NAME)
class RestoredHF(GreedyHF):
    """A fine-tune with weights given back to its base.

    Args:
        pretrained: the fine-tune: local folder or hub id.
        base: its base.
        kwargs: `ratio` (percent), or a `recipe` or `mask` file, and what else `on_load.Choice`
            knows; anything that lm-eval's `hf` takes.
    """

    _model: Any

    def __init__(self, pretrained: str, base: str, **kwargs: Any) -> None:
        if refused := [name for name in _OTHER_WEIGHTS if kwargs.get(name)]:
            raise SettingsError(
                f"{NAME} restores the checkpoint's own weights and takes no {refused[0]}. Write "
                "the restored model with 'sftknow restore' and load that with --model hf."
            )
        choice, kwargs = Choice.taken_from({"base": base, **kwargs})
        revision = kwargs.get("revision")
        self._named = pretrained, revision
        self._finetuned = locate_model(pretrained, revision)
        _refuse_adapter(self._finetuned)
        self._base = choice.base_folder()
        self._restoration = choice.restoration(pretrained, revision)
        super().__init__(pretrained=pretrained, **kwargs)

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        blenders: list[Blender] = []

        def start(model: Any) -> Blender:
            expectation = Expectation(next(model.parameters()).dtype)
            blenders.append(Blender(self._base, self._finetuned, self._restoration, expectation))
            return blenders[-1]

        with blended_loading(start) as settings:
            super()._create_model(*args, **kwargs)
        if len(blenders) != 1:
            raise CheckpointError(
                f"transformers loaded weights {len(blenders)} times in a way that can be "
                "restored; expected once. Write the restored model with 'sftknow restore'."
            )
        self._load_config: Any = settings[0]
        with blenders[0] as blender:
            self._report = verified(self._model, blender)

    @property
    def report(self) -> LoadReport:
        """What was loaded last, with the canary's checksum."""
        return self._report

    def restore(self, choice: Choice) -> LoadReport:
        """Put another restoration of the same pair in place, tensor by tensor.

        Raises:
            CheckpointError: it failed. The model is gone then: half of its weights may be of
                one restoration and half of another.
        """
        restoration = choice.restoration(*self._named)
        model: Any = self._model
        expectation = Expectation(next(model.parameters()).dtype)
        try:
            with Blender(self._base, self._finetuned, restoration, expectation) as blender:
                load_in_place(model, self._finetuned, blender, self._load_config)
                self._report = verified(model, blender)
        except BaseException as error:
            self._model = EndedEngine(str(error))
            raise
        return self._report

    def close(self) -> None:
        """Free the model's memory."""
        self._model = EndedEngine("it was closed")

    def get_model_info(self) -> dict[str, Any]:
        """Return lm-eval's record of the model, and that of the restoration."""
        info: dict[str, Any] = super().get_model_info()
        return info | {"restoration": self._report.record()}


def load_in_place(model: Any, folder: Path, blender: Blender, load_config: Any) -> None:
    """Load a checkpoint into a model that has weights already, one tensor at a time."""
    devices = load_config.device_map or {"": model.device}
    if "disk" in {str(device) for device in devices.values()}:
        raise SettingsError(
            "A model that is offloaded to disk cannot be restored in place. Load it on fewer or "
            "larger devices, or evaluate one ratio at a time."
        )
    settings = dataclasses.replace(load_config, device_map=devices)
    # transformers looks at names, shapes and types there; the tensors themselves would keep all
    # that is replaced in memory until the end.
    shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    with (
        contextlib.ExitStack() as files,
        # Else transformers reads ahead without end while the replaced tensors are still there.
        mock.patch.dict(os.environ, {"HF_DEACTIVATE_ASYNC_LOAD": "1"}),
        mock.patch.object(model, "state_dict", return_value=shapes),
        torch.no_grad(),
    ):
        lazy: dict[str, _Lazy] = {}
        for path in blender.files:
            file = files.enter_context(safe_open(path, framework="pt"))
            names = list(file.keys())
            lazy |= {name: _Lazy(name, file.get_slice(name), blender) for name in names}
        info, _ = core_model_loading.convert_and_load_state_dict_in_model(
            model=model, state_dict=lazy, load_config=settings, disk_offload_index=None
        )
        if info.mismatched_keys or info.conversion_errors or info.error_msgs:
            raise CheckpointError(
                f"transformers could not load {folder} in place: {info.mismatched_keys or ''} "
                f"{info.conversion_errors or ''} {info.error_msgs or ''}"
            )
        model.tie_weights()


def verified(model: Any, blender: Blender) -> LoadReport:
    """Return the report of a finished load after a look at what the model computes with.

    Raises:
        CheckpointError: the model does not hold what the restoration says.
    """
    report = blender.finish()
    assert blender.expectation is not None
    parameters = dict(model.named_parameters())
    canary = blender.expectation.check(
        (rows for n, p in parameters.items() if p.dim() > 1 for rows in Rows.of(n, p)),
        [p.detach() for p in parameters.values() if p.dim() < 2],
    )
    return dataclasses.replace(report, canary=canary)


def _refuse_adapter(folder: Path) -> None:
    if is_adapter(folder):
        raise SettingsError(
            f"{folder} is an adapter; only whole models are restored while they load. Write the "
            "restored model with 'sftknow restore BASE ADAPTER' and load that."
        )
