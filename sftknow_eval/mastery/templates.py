"""Completion templates: phrases that end where a fact's object follows.

A template file is YAML, one list of phrases for each relation, `{subject}` once in each:

    P19:
    - "The birthplace of {subject} is"
    - "{subject} was born in the city of"

The file is read as a tree of nodes with their lines, not as values: a relation that stands
twice is seen, and each fault is reported with its line. docs/templates.md has the rules.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from sftknow_eval.artifacts import digest
from sftknow_eval.errors import TemplateError
from sftknow_eval.mastery.facts import Fact, Relation

SUBJECT = "{subject}"
_SENTENCE_END = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")  # also ellipsis, CJK
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Templates:
    """The completion templates of some relations, the same number for each.

    Attributes:
        completions: the templates of each relation, by its id, in the file's order.
        digest: SHA-256 of everything that the file says, whatever its layout, comments and
            order of relations. It does not depend on which of its relations are in use, so
            that a table of a few relations and one of all recognise the same file.

    Source: section 3.1, appendix F.1 (N_map templates a relation).
    """

    completions: dict[str, tuple[str, ...]]
    digest: str

    @property
    def count(self) -> int:
        """Templates of each relation: the paper's N_map."""
        return len(next(iter(self.completions.values())))

    def prompt(self, fact: Fact, index: int) -> str:
        """Return template `index` of the fact's relation with the subject put in literally.

        Raises:
            TemplateError: the fact's relation is not among these templates.
        """
        try:
            template = self.completions[fact.relation][index]
        except KeyError as error:
            raise TemplateError(
                f"{fact.id} has the relation {fact.relation}, and the templates loaded are for "
                f"{', '.join(self.completions)}. Add templates for {fact.relation} to the file."
            ) from error
        return template.replace(SUBJECT, fact.subject)


def load_templates(
    source: Path | Traversable,
    relations: Iterable[Relation],
    *,
    known: Iterable[str] | None = None,
) -> Templates:
    """Read the templates of `relations`; whatever else the file holds is checked and not used.

    Args:
        source: a YAML file (layout in the module's docstring).
        relations: those in use; each needs templates, as many as every other.
        known: ids of all relations of the data; an id in the file outside of them is a fault.
            When None, relations that are not in use are not looked up.

    Raises:
        TemplateError: lists every fault of the file at once.
    """
    wanted = {relation.id: relation.label for relation in relations}
    if not wanted:
        raise TemplateError(f"No relation was asked for, so {source} has nothing to fill.")
    ids = None if known is None else [*known]
    faults: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    for key, value in _entries(source):
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None:
            faults.append(f"{_line(key)}: a relation id such as P19 was expected")
        elif name in found:
            faults.append(f"{_line(key)}: {name} stands here a second time; merge the two lists")
        else:
            found[name] = tuple(_read_list(name, value, faults))
            if ids is not None and name not in ids:
                faults.append(f"{_line(key)}: {_unknown(name, ids)}")
    faults += _missing(wanted, found)
    faults += _uneven({name: len(found[name]) for name in wanted if found.get(name)})
    if faults:
        raise TemplateError(
            f"{source} cannot be used as templates ({len(faults)} "
            f"fault{'s' if len(faults) > 1 else ''}):\n- " + "\n- ".join(faults)
        )
    return Templates({name: found[name] for name in wanted}, digest(found))


def _entries(source: Path | Traversable) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the top level of the file as nodes.

    Raises:
        TemplateError: the file is missing, is not YAML, or is no mapping.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise TemplateError(
            f"The template file {source} cannot be read: {error.strerror or error}."
        ) from error
    try:
        root = yaml.compose(content, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise TemplateError(f"{source} is not readable as YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise TemplateError(
            f"{source} holds {'nothing' if root is None else 'no mapping'}; a list of templates "
            'under each relation id was expected, such as P19: ["The birthplace of {subject} is"].'
        )
    return list(root.value)


def _read_list(name: str, value: yaml.Node, faults: list[str]) -> Iterator[str]:
    """Yield the texts of one relation's list, and add what is wrong with them to `faults`."""
    if not isinstance(value, yaml.SequenceNode) or not value.value:
        faults.append(f"{_line(value)}: {name} needs a list of templates, one a line after '- '")
        return
    lines: dict[str, str] = {}
    for number, node in enumerate(value.value, start=1):
        where = f"{_line(node)}, {name}, template {number}"
        if not isinstance(node, yaml.ScalarNode) or node.tag != _STRING:
            faults.append(f"{where}: not a text; put it in double quotes")
            yield ""  # it counts, so that no second fault about numbers is made of this one
            continue
        text = str(node.value)
        faults += [f"{where}: {fault}" for fault in _text_faults(text)]
        if text in lines:
            faults.append(f"{where}: {text!r} stands already in {lines[text]}")
        lines.setdefault(text, _line(node))
        yield text


def _text_faults(text: str) -> Iterator[str]:
    if not text.strip():
        yield "empty"
        return
    if text != text.strip():
        yield f"{text!r} begins or ends with white space; the object brings its own space"
    if len(text.splitlines()) > 1:
        yield f"{text!r} holds a line break; one line was expected"
    times = text.count(SUBJECT)
    if times != 1:
        problem = f"names {SUBJECT} {times} times" if times else f"does not name {SUBJECT}"
        yield f"{text!r} {problem}; once was expected"
    others = _PLACEHOLDER.findall(text.replace(SUBJECT, ""))
    if others:
        yield f"{text!r} holds {' and '.join(others)}; {SUBJECT} is the only placeholder"
    if text.rstrip().endswith(_SENTENCE_END):
        yield f"{text!r} ends a sentence; it must stop where the object follows"


def _missing(wanted: dict[str, str], found: dict[str, tuple[str, ...]]) -> Iterator[str]:
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    listed = ", ".join(f"{name} ({wanted[name]})" for name in missing)
    have = [name for name in wanted if found.get(name)]
    instead = f", or ask only for the relations there are: {','.join(have)}" if have else ""
    yield f"no templates for {listed}; add them{instead}"


def _uneven(counts: dict[str, int]) -> Iterator[str]:
    relations_with = defaultdict(list)
    for name, count in counts.items():
        relations_with[count].append(name)
    if len(relations_with) > 1:
        listed = "; ".join(f"{n} for {', '.join(names)}" for n, names in relations_with.items())
        yield f"every relation needs the same number of templates, and there are {listed}"


def _unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name.upper(), known, n=3, cutoff=0.5)
    if near:
        return f"{name} is no relation of the data; near it are {', '.join(near)}"
    return f"{name} is no relation of the data, which has {', '.join(known)}"


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
