"""What is wrong in a strategy's file beyond its own names: what TRL, PEFT and draws do not know.

TRL and PEFT take seconds to import and are asked only where a strategy has settings for them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from sftknow_eval.config_faults import Fault, Place, nearest
from sftknow_eval.errors import SettingsError
from sftknow_eval.training.draw import load_draw

# Settings of SFTConfig that follow from others here, and from which.
OURS = {
    **dict.fromkeys(("learning_rate", "max_steps", "weight_decay", "max_grad_norm"), "training"),
    **{"gradient_checkpointing": "training", "num_train_epochs": "training.epochs"},
    **{"per_device_train_batch_size": "training.batch_size", "bf16": "training.autocast"},
    **{"lr_scheduler_type": "training.lr_scheduler", "warmup_steps": "training.warmup"},
    **{"warmup_ratio": "training.warmup", "fp16": "training.autocast"},
    **dict.fromkeys(("seed", "data_seed"), "the option --seed"),
    **dict.fromkeys(("save_steps", "save_strategy"), "the option --checkpoint-steps"),
    **dict.fromkeys(("output_dir", "resume_from_checkpoint"), "the option --out"),
    **dict.fromkeys(("max_length", "packing", "completion_only_loss"), "how facts are encoded"),
    **dict.fromkeys(("dataset_kwargs", "assistant_only_loss"), "how facts are encoded"),
}


def strategy_faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of `trainer`, `adapter` and `facts` in a parsed strategy."""
    for name, check in (
        ("trainer", _trainer_faults),
        ("adapter", _adapter_faults),
        ("facts", _draw_faults),
    ):
        section = value.get(name)
        if isinstance(section, Mapping) and section:
            yield from check(section)


def _trainer_faults(settings: Mapping[str, Any]) -> Iterator[Fault]:
    from trl import SFTConfig

    fields = {field.name: field for field in dataclasses.fields(SFTConfig) if field.init}
    for name, value in settings.items():
        place: Place = ("trainer", name)
        if name in OURS:
            yield Fault(place, f"is not set here; it follows from {OURS[name]}")
        elif name not in fields:
            yield Fault(place, "is no setting of TRL's SFTConfig", nearest(name, fields))
        elif (choices := fields[name].metadata.get("choices")) and value not in choices:
            listed = ", ".join(map(str, choices))
            near = nearest(str(value), map(str, choices))
            yield Fault(place, f"is {value!r}; one of {listed} was expected", near)


def _adapter_faults(section: Mapping[str, Any]) -> Iterator[Fault]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = section.get("type")
    known = {str(name.value): config for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if not isinstance(kind, str) or kind not in known:
        if kind is not None:
            near = nearest(str(kind).upper(), known)
            yield Fault(("adapter", "type"), f"PEFT knows no method {kind!r}", near)
        return
    settings = section.get("settings")
    names = {field.name for field in dataclasses.fields(known[kind]) if field.init}
    for name in settings if isinstance(settings, Mapping) else ():
        if name not in names:
            place = ("adapter", "settings", name)
            yield Fault(
                place, f"is no setting of PEFT's {known[kind].__name__}", nearest(name, names)
            )


def _draw_faults(section: Mapping[str, Any]) -> Iterator[Fault]:
    name = section.get("draw", "stratum")
    if not isinstance(name, str):
        return
    try:
        draw = load_draw(name)
    except SettingsError as error:
        yield Fault(("facts", "draw"), str(error))
        return
    known = [
        parameter.name
        for parameter in inspect.signature(draw).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    options = section.get("options")
    for option in options if isinstance(options, Mapping) else ():
        if option not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            place = ("facts", "options", option)
            yield Fault(
                place, f"the draw '{name}' has no such option ({listed})", nearest(option, known)
            )
