"""What is wrong in a study's file beyond single values: names that stand for nothing in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow_eval.config_faults import Fault, Place, nearest, read_config
from sftknow_eval.study.config import Study

_MEASURES = ("sweep", "layers", "token_drift", "weights")


def load_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        SettingsError: it has faults: all are listed, with their lines and the nearest valid name.
    """
    return read_config(path, Study, _faults)


def _faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    bases = [base.get("id", "base") for base in _mappings(value.get("bases"))]
    for number, name in enumerate(bases):
        if name in bases[:number]:
            yield Fault(("bases", number), f"'{name}' is the id of another base, too")
    yield from _training(("training",), value.get("training"))
    for number, group in enumerate(_mappings(value.get("runs"))):
        place: Place = ("runs", number)
        yield from _known((*place, "bases"), group.get("bases"), bases, "base")
        yield from _training((*place, "settings"), group.get("settings"))
        for measure in _MEASURES:
            yield from _chosen((*place, measure), group, group.get(measure))
    for number, task in enumerate(_mappings(value.get("other_tasks"))):
        place = ("other_tasks", number)
        yield from _known((*place, "base"), [task.get("base", "base")], bases, "base")
        yield from _training((*place, "settings"), task.get("settings"))


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else []
    return [item if isinstance(item, Mapping) else {} for item in items]


def _known(place: Place, asked: Any, known: Sequence[str], what: str) -> Iterator[Fault]:
    for name in asked if isinstance(asked, list) else ():
        if name not in known:
            yield Fault(place, f"no {what} has the id '{name}'", nearest(str(name), known))


def _training(place: Place, settings: Any) -> Iterator[Fault]:
    from sftknow_eval.training.settings import TrainSettings

    names = [field.name for field in dataclasses.fields(TrainSettings)]
    for name in settings if isinstance(settings, Mapping) else ():
        if name not in names:
            yield Fault((*place, name), "is no setting of the training", _near(name, names))


def _near(name: Any, names: Iterable[str]) -> str | None:
    return nearest(str(name), list(names))


def _chosen(place: Place, group: Mapping[str, Any], measure: Any) -> Iterator[Fault]:
    """Refuse a choice among a group's runs that the group does not have."""
    if not isinstance(measure, Mapping):
        return
    for name in ("n", "strata"):
        asked, there = measure.get(name), group.get(name, ["all"])
        if isinstance(asked, list) and isinstance(there, list):
            for value in asked:
                if value not in there:
                    listed = ", ".join(map(str, there))
                    yield Fault(
                        (*place, name), f"the group has no {name} {value} (it has {listed})"
                    )
    draws, there = measure.get("draws"), group.get("draws", 1)
    if isinstance(draws, int) and isinstance(there, int) and draws > there:
        yield Fault((*place, "draws"), f"{draws} draws, but the group has {there}")
