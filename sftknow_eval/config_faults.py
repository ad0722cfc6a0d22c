"""YAML configurations, with every fault listed at once: its line, and the nearest valid name.

YAML is read by the rules of version 1.2 where they matter here: `1e-5` is a number, and only
`true` and `false` are truth values. A key that stands twice is a fault.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sftknow_eval.errors import SettingsError

Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)|[0-9]+\.[0-9]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_MERGE = "tag:yaml.org,2002:merge"
_MISSING = "is missing"
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a configuration.

    Attributes:
        place: the keys (and positions in lists) that lead to it.
        message: what is wrong, as a phrase.
        nearest: the valid name that is nearest to what was found.
    """

    place: Place
    message: str
    nearest: str | None = None


@dataclass(frozen=True)
class Config:
    """A parsed YAML text, and the line on which each of its values begins.

    Attributes:
        named: what messages call it, such as its path.
        value: what it holds.
        lines: line (from 1) by place.
        faults: keys that stand twice.
    """

    named: str
    value: Any
    lines: Mapping[Place, int]
    faults: list[Fault] = field(default_factory=list)

    def line(self, place: Place) -> int | None:
        """Return the line of a place, or of the nearest place around it that was written."""
        return self.lines.get(self.written(place))

    def written(self, place: Place) -> Place:
        """Return the part of a place that stands in the text: pydantic adds a union's branches."""
        while place and place not in self.lines:
            place = place[:-1]
        return place

    def refuse(self, faults: Iterable[Fault]) -> None:
        """Raise one error that lists all faults, by line; do nothing when there are none.

        Raises:
            SettingsError: there are faults.
        """
        found = [*self.faults, *faults]
        if not found:
            return
        placed = sorted(((self.line(fault.place) or 0, fault) for fault in found), key=_first)
        listed = "\n".join(f"  {_described(line, fault)}" for line, fault in placed)
        count = "a fault" if len(found) == 1 else f"{len(found)} faults"
        raise SettingsError(f"{self.named} has {count}:\n{listed}")


def parse_config(text: str, named: str) -> Config:
    """Parse a YAML text.

    Args:
        text: the text.
        named: what messages call it.

    Raises:
        SettingsError: it is not YAML; the message has the line.
    """
    lines: dict[Place, int] = {}
    faults: list[Fault] = []
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else _built(loader, node, (), lines, faults)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{named} is not readable as YAML: {_problem(error)}.") from error
    finally:
        loader.dispose()
    return Config(named, value, lines, faults)


def read_config(
    path: Path,
    model: type[Model],
    also: Callable[[Mapping[str, Any]], Iterable[Fault]] = lambda value: (),
) -> Model:
    """Read a YAML file as a pydantic model.

    Args:
        path: the file.
        model: what it has to be.
        also: finds further faults in what the file holds, to be listed with the others.

    Raises:
        SettingsError: the file cannot be read, or has faults: all of them are listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{path} cannot be read: {reason}.") from error
    return validated(model, parse_config(text, str(path)), also)


def validated(
    model: type[Model],
    config: Config,
    also: Callable[[Mapping[str, Any]], Iterable[Fault]] = lambda value: (),
) -> Model:
    """Return a parsed configuration as a pydantic model.

    Raises:
        SettingsError: it has faults: all of them are listed.
    """
    if not isinstance(config.value, dict):
        found = "nothing" if config.value is None else type(config.value).__name__
        raise SettingsError(f"{config.named} holds {found}; a mapping of settings was expected.")
    made, faults = None, list(also(config.value))
    try:
        made = model.model_validate(config.value)
    except ValidationError as error:
        known = {fault.place for fault in faults}
        joined = _joined(config, _faults(error, model))
        faults += [fault for fault in joined if fault.place not in known]
    config.refuse(faults)
    assert made is not None
    return made


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the valid name that is nearest to `name`, if one is near."""
    found = difflib.get_close_matches(name, list(names), 1, 0.65)
    return found[0] if found else None


def _first(placed: tuple[int, Fault]) -> int:
    return placed[0]


def _described(line: int, fault: Fault) -> str:
    where = f"line {line}: " if line else ""
    place = ".".join(map(str, fault.place))
    hint = f"; did you mean '{fault.nearest}'?" if fault.nearest else ""
    return f"{where}{place + ': ' if place else ''}{fault.message}{hint}"


def _faults(error: ValidationError, model: type[BaseModel]) -> Iterable[Fault]:
    for entry in error.errors(include_url=False):
        place, found = tuple(entry["loc"]), entry.get("input")
        kind, context = entry["type"], entry.get("ctx", {})
        if kind == "extra_forbidden":
            names = _names_at(model, place[:-1])
            known = f"; known are {', '.join(names)}" if 0 < len(names) <= 24 else ""
            name = str(place[-1])
            yield Fault(place, f"is no setting here{known}", nearest(name, names))
        elif kind == "missing":
            yield Fault(place, _MISSING)
        elif kind in ("literal_error", "enum"):
            names = _QUOTED.findall(str(context.get("expected", "")))
            expected = ", ".join(names) or str(context.get("expected"))
            near = nearest(found, names) if isinstance(found, str) else None
            yield Fault(place, f"is {_short(found)}; one of {expected} was expected", near)
        elif kind == "value_error":
            yield Fault(place, str(context.get("error", entry["msg"])))
        else:
            yield Fault(place, f"is {_short(found)}: {_lowered(entry['msg'])}")


def _joined(config: Config, faults: Iterable[Fault]) -> list[Fault]:
    """Return one fault for each place: a union says what is wrong once for each branch."""
    by_place: dict[Place, Fault] = {}
    for fault in faults:
        missing = fault.message == _MISSING
        place = fault.place if missing else config.written(fault.place)
        other = by_place.get(place)
        message = f"{other.message}; or {fault.message}" if other else fault.message
        near = (other.nearest if other else None) or fault.nearest
        by_place[place] = Fault(place, message, near)
    return list(by_place.values())


def _names_at(model: Any, place: Sequence[str | int]) -> list[str]:
    """Return the names of the fields that the models at a place have."""
    models = list(_models(model))
    for part in place:
        inner: list[type[BaseModel]] = []
        for known in models:
            if isinstance(part, str) and part in known.model_fields:
                inner += _models(known.model_fields[part].annotation)
        # A position in a list or the tag of a union: still the same models.
        models = inner or models
    return sorted({name for known in models for name in known.model_fields})


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    words = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}" if mark else words


class _Loader(yaml.SafeLoader):
    """YAML without what surprises: dates, yes/no and numbers in base 60 stay text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _starts in (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+0123456789."),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    (_MERGE, re.compile(r"^(?:<<)$"), "<"),
):
    _Loader.add_implicit_resolver(_tag, _pattern, list(_starts))


def _built(
    loader: _Loader, node: Any, place: Place, lines: dict[Place, int], faults: list[Fault]
) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        # Looked for before merging (<<), after which a key may stand twice and mean the last.
        for key, line in _repeated(loader, node):
            faults.append(Fault((*place, key), f"stands twice (again on line {line})"))
        loader.flatten_mapping(node)
        built: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _key(loader, key_node)
            lines.setdefault((*place, key), key_node.start_mark.line + 1)
            built[key] = _built(loader, value_node, (*place, key), lines, faults)
        return built
    if isinstance(node, yaml.SequenceNode):
        return [
            _built(loader, item, (*place, i), lines, faults) for i, item in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)


def _repeated(loader: _Loader, node: Any) -> Iterable[tuple[str | int, int]]:
    seen: set[str | int] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = _key(loader, key_node)
        if key in seen:
            yield key, key_node.start_mark.line + 1
        seen.add(key)


def _key(loader: _Loader, node: Any) -> str | int:
    key = loader.construct_object(node, deep=True)
    return key if isinstance(key, int) else str(key)
