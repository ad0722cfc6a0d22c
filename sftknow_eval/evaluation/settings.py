"""What `--metadata` asks of the tasks.

lm-eval merges the model's arguments with `--metadata` before the tasks see them, so unknown
names cannot be refused here: they may be the model's. A name that is nearly one of ours is.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import cache_dir
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.prompts import Style, check_style
from sftknow_eval.mastery.facts import Split
from sftknow_eval.record import TrainingRecord, read_record

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
NAMES = ("base", "data", "facts", "mastery", "relations", "split", "style", "templates")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """Which facts are asked, how, and by whose mastery they are stratified.

    Attributes:
        split: of the facts asked.
        facts: file of the fact ids asked, instead of a whole split.
        relations: relation ids to restrict to; empty for all.
        style: prompt style; None where nothing says one.
        mastery, base, model: where the mastery table is looked for, in this order.
        base_fingerprint: of the base's weights, as the training record states it.
        data: the facts' folder or archive; None for the default.
        templates: file that replaces the data's completion templates.
        tokenizer: name of the tokenizer whose special tokens are taken out of outputs.
        stamps: sizes and times of the files named and of the tables' cache, so that what changed
            is read again.
    """

    split: Split = "test"
    facts: str | None = None
    relations: tuple[str, ...] = ()
    style: Style | None = None
    mastery: str | None = None
    base: str | None = None
    model: str | None = None
    base_fingerprint: str | None = None
    data: str | None = None
    templates: str | None = None
    tokenizer: str | None = None
    stamps: tuple[tuple[str, int, int], ...] = ()


def read_settings(metadata: Mapping[str, Any]) -> TaskSettings:
    """Return the settings in lm-eval's merged metadata (model arguments included).

    A model folder with a training record states its base, its data and its prompt style; what
    `--metadata` and the environment say goes before that.

    Raises:
        SettingsError: a misspelt name, an unknown split or style, a value of the wrong kind.
        DataError: the model's training record is not readable.
    """
    _check_names(metadata)
    model = _text(metadata, "pretrained") or _text(metadata, "model")
    record = _record(_text(metadata, "peft"), _text(metadata, "lora_local_path"), model)
    style = _text(metadata, "style") or (record.style if record else None)
    mastery = _text(metadata, "mastery") or os.environ.get("SFTKNOW_MASTERY")
    facts, templates = _text(metadata, "facts"), _text(metadata, "templates")
    data = _text(metadata, "data") or os.environ.get("SFTKNOW_DATA") or _recorded_data(record)
    named = (mastery, facts, templates, data)
    return TaskSettings(
        split=_split(_text(metadata, "split") or "test"),
        facts=facts,
        relations=_relations(metadata.get("relations")),
        style=check_style(style) if style else None,
        mastery=mastery,
        base=_text(metadata, "base") or (record.base if record else None),
        model=model,
        base_fingerprint=record.base_fingerprint if record else None,
        data=data,
        templates=templates,
        tokenizer=_text(metadata, "tokenizer") or model,
        stamps=tuple(_stamp(path) for path in (*named, str(cache_dir() / "mastery")) if path),
    )


def _check_names(metadata: Mapping[str, Any]) -> None:
    for name in metadata:
        if name not in NAMES and (near := difflib.get_close_matches(name, NAMES, 1, 0.8)):
            raise SettingsError(
                f"--metadata has '{name}', which is unknown; did you mean '{near[0]}'? The tasks "
                f"read {', '.join(NAMES)}."
            )


def _text(metadata: Mapping[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    if value is None or value == "":
        return None
    if name in NAMES and not isinstance(value, str):
        raise SettingsError(f"--metadata: '{name}' is {json.dumps(value)}; a text was expected.")
    return value if isinstance(value, str) else None


def _split(text: str) -> Split:
    for known in SPLITS:
        if text == known:
            return known
    raise SettingsError(f"--metadata: split is '{text}'; known are {', '.join(SPLITS)}.")


def _relations(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value or []
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise SettingsError(
            f"--metadata: relations is {json.dumps(value)}; a list of ids, or a text such as "
            "'P17,P19', was expected."
        )
    return tuple(part.strip() for part in parts)


def _record(*folders: str | None) -> TrainingRecord | None:
    for folder in folders:
        if folder and Path(folder).is_dir() and (record := read_record(folder)):
            return record
    return None


def _recorded_data(record: TrainingRecord | None) -> str | None:
    # Rows of another task, with prompts of their own, are no facts.
    source = record.data_source if record and record.prompt != "own" else None
    return source if source and Path(source).exists() else None


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return (path, 0, 0)
    return (path, found.st_size, found.st_mtime_ns)
