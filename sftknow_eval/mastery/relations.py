"""Relation lists (YAML) and alias files (JSON): read whole, or refused with every fault named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import yaml

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.facts import Domain, Relation

SUBJECT = "{subject}"
_SHOWN = 10
_ID = re.compile(r"P[1-9][0-9]*")
_FIELDS = ("label", "domain", "question")
_EXAMPLE = 'P19: {label: place of birth, domain: id, question: "Where was {subject} born?"}'
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_relations(content: bytes, name: str) -> dict[str, Relation]:
    """Return the relations of a list, by number.

    Args:
        content: YAML, an entry `P17: {label, domain: id|ood, question}` for each relation.
        name: what the list is called in errors.

    Raises:
        DataError: it is not YAML or has faults; all of them are named.
    """
    try:
        root = yaml.compose(content, _Loader)
        listed = yaml.load(content, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{name} is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode) or not listed:
        raise DataError(f"{name} lists no relations. Give one a line: {_EXAMPLE}")
    faults = [*_repeated(root)]
    for key, entry in listed.items():
        faults += [f"{key}: {fault}" for fault in _entry_faults(key, entry)]
    if faults:
        raise DataError(
            f"{name} cannot be used as a relation list:\n"
            + "\n".join(f"- {fault}" for fault in faults)
            + f"\nAn entry looks like this: {_EXAMPLE}"
        )
    return {
        key: Relation(key, *(listed[key][field] for field in _FIELDS))
        for key in sorted(listed, key=lambda key: int(key[1:]))
    }


def read_aliases(content: bytes, name: str) -> dict[str, list[str]]:
    """Return the accepted other forms of each answer.

    Args:
        content: JSON, `{"ANSWER": ["ALIAS", ...]}`.
        name: what the file is called in errors.

    Raises:
        DataError: it is not JSON or has faults; all of them are named.
    """
    faults: list[str] = []

    def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # json keeps the last of two equal keys and says nothing.
        names = [key for key, _ in pairs]
        faults.extend(
            f"{key!r} stands there twice; merge the two lists"
            for key in dict.fromkeys(names)
            if names.count(key) > 1
        )
        return dict(pairs)

    try:
        listed = json.loads(content, object_pairs_hook=merged)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if not isinstance(listed, dict):
        raise DataError(f'{name} must be {{"ANSWER": ["ALIAS", ...]}}.')
    for answer, forms in listed.items():
        if not isinstance(forms, list):
            faults.append(f"{answer!r}: a list of aliases was expected, found {forms!r}")
            continue
        faults += [f"{answer!r}: alias {f!r} is {fault}" for f in forms if (fault := no_text(f))]
    if faults:
        raise DataError(f"{name} cannot be used as aliases:\n{shown(faults)}")
    return listed


def no_text(value: Any) -> str | None:
    """Return what keeps `value` from being a text that can be found in another, or None."""
    if not isinstance(value, str):
        return "no text"
    if not value.strip():
        return "empty"
    # JSON can hold half of a character (a lone surrogate), which no file or tokenizer takes.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "not valid Unicode"
    return None


def shown(faults: Sequence[str]) -> str:
    """Return the first ten faults, one a line, and how many more there are."""
    more = [f"... and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
    return "\n".join([*(f"- {fault}" for fault in faults[:_SHOWN]), *more])


def _repeated(root: yaml.MappingNode, within: str | None = None) -> Iterator[str]:
    # YAML readers keep the last of two equal keys and say nothing.
    at = f"{within}: " if within else ""
    lines: dict[str, int] = {}
    for key, value in root.value:
        line, name = key.start_mark.line + 1, str(key.value)
        if name in lines:
            yield f"line {line}: {at}{name} stands already in line {lines[name]}"
        lines.setdefault(name, line)
        if within is None and isinstance(value, yaml.MappingNode):
            yield from _repeated(value, within=name)


def _entry_faults(key: Any, entry: Any) -> Iterator[str]:
    if not isinstance(key, str) or not _ID.fullmatch(key):
        yield "a relation id such as P17 was expected"
    if not isinstance(entry, dict):
        yield f"label, domain and question were expected, found {entry!r}"
        return
    yield from (f"{name!r} is unknown" for name in entry if name not in _FIELDS)
    missing = [name for name in _FIELDS if name not in entry]
    if missing:
        yield f"{' and '.join(missing)} missing"
    if "label" in entry and (fault := no_text(entry["label"])):
        yield f"label is {fault}: {entry['label']!r}"
    if "domain" in entry and entry["domain"] not in get_args(Domain):
        yield f"domain is {entry['domain']!r}; id or ood was expected"
    if "question" in entry:
        yield from _question_faults(entry["question"])


def _question_faults(question: Any) -> Iterator[str]:
    if fault := no_text(question):
        yield f"question is {fault}: {question!r}"
    elif (times := question.count(SUBJECT)) != 1:
        held = f"holds {SUBJECT} {times} times" if times else f"does not hold {SUBJECT}"
        yield f"question {question!r} {held}; once was expected"
