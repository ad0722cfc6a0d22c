"""A data set: its relations and facts, filtered as in the paper, with every row counted.

Source: section 3.1; which rows the paper kept was recovered from its totals (protocol, "Facts").
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

import yaml

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.facts import Domain, Fact, Relation, Split

PACKAGED = files("sftknow_eval") / "data" / "entity_questions"
SPLITS: tuple[Split, ...] = get_args(Split)
_SHOWN = 10


@dataclass(slots=True)
class RowCount:
    """Rows of one relation in one split: `read == kept + sum(dropped.values())`.

    Attributes:
        dropped: how many rows for which reason.
    """

    relation: str
    domain: Domain
    split: Split
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count one row as dropped."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class Dataset:
    """Facts of the shape of EntityQuestions; a split is read when it is first asked for."""

    def __init__(
        self,
        file_source: FactFiles,
        name: str,
        relations: dict[str, Relation],
        aliases: dict[str, list[str]],
        templates_file: Path | Traversable,
    ) -> None:
        self.name = name
        self.source = str(file_source.source)
        self.relations = relations
        self.templates_file = templates_file
        self._files = file_source
        self._aliases = aliases
        self._facts: dict[Split, list[Fact]] = {}
        self._counts: dict[Split, list[RowCount]] = {}

    def facts(
        self,
        split: Split,
        domain: Domain | None = None,
        relations: Collection[str] | None = None,
    ) -> list[Fact]:
        """Return the facts of a split, by number of relation and row.

        Rows with exactly one answer are kept, and of rows that ask the same question, within
        the relations of one domain, the first.

        Raises:
            DataError: a file is missing or holds rows that are not facts.

        Source: section 3.1.
        """
        self._load(split)
        return [
            fact
            for fact in self._facts[split]
            if (domain is None or fact.domain == domain)
            and (relations is None or fact.relation in relations)
        ]

    def probe_facts(
        self,
        splits: Sequence[Split] = SPLITS,
        relations: Collection[str] | None = None,
    ) -> list[Fact]:
        """Return the facts that the study uses: ID of every split, OOD of the test split.

        Source: Tables 1 and 8 (the dev split is ours).
        """
        chosen: list[Fact] = []
        for split in splits:
            chosen += self.facts(split, None if split == "test" else "id", relations)
        return chosen

    def counts(self) -> list[RowCount]:
        """Return the rows read, kept and dropped of every relation and split."""
        for split in SPLITS:
            self._load(split)
        return [count for split in SPLITS for count in self._counts[split]]

    def unlisted(self) -> list[str]:
        """Return relations that have files but are not in the relation list."""
        found = {name for names in self._files.relations.values() for name in names}
        return sorted(found - set(self.relations))

    def _load(self, split: Split) -> None:
        if split in self._facts:
            return
        faults: list[str] = []
        facts: list[Fact] = []
        counts: list[RowCount] = []
        asked: set[tuple[Domain, str]] = set()
        for relation in self.relations.values():
            count = RowCount(relation.id, relation.domain, split)
            name = f"{relation.id}.{split}.json"
            rows = _rows(self._files.rows_file(relation.id, split), f"{self.source}: {name}")
            for number, row in enumerate(rows):
                fault = _row_fault(row, relation)
                if fault:
                    faults.append(f"{name}, row {number}: {fault}")
                    continue
                count.read += 1
                if len(row["answers"]) != 1:
                    count.drop("several answers" if row["answers"] else "no answer")
                elif (relation.domain, row["question"]) in asked:
                    count.drop("repeated question")
                else:
                    asked.add((relation.domain, row["question"]))
                    count.kept += 1
                    facts.append(self._fact(relation, split, number, row))
            counts.append(count)
        if faults:
            more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise DataError(
                f"{self.source} has rows that are not facts; "
                '{"question": TEXT, "answers": [TEXT, ...]} was expected:\n'
                + "\n".join(faults[:_SHOWN])
                + more
            )
        self._facts[split], self._counts[split] = facts, counts

    def _fact(self, relation: Relation, split: Split, number: int, row: dict[str, Any]) -> Fact:
        before, after = relation.question.split("{subject}")
        question, answer = row["question"], row["answers"][0]
        return Fact(
            id=f"{relation.id}-{split}-{number:04d}",
            relation=relation.id,
            domain=relation.domain,
            split=split,
            subject=question[len(before) : len(question) - len(after)],
            question=question,
            answer=answer,
            aliases=tuple(dict.fromkeys((answer, *self._aliases.get(answer, ())))),
        )


def open_dataset(
    source: str | Path | None = None,
    *,
    relations: Path | None = None,
    aliases: Path | None = None,
) -> Dataset:
    """Open a data set: `source`, else `SFTKNOW_DATA`, else EntityQuestions from the cache.

    Relation list, aliases and templates are those beside `dataset/`, else EntityQuestions'.

    Args:
        source: folder or zip that holds `dataset/{train,dev,test}/P*.json`.
        relations: relation list (YAML) in place of the data's own.
        aliases: alias file (JSON) in place of the data's own.

    Raises:
        DataError: it cannot be read, or its relation list or aliases are faulty.
    """
    configured = source or os.environ.get("SFTKNOW_DATA")
    if configured is None:
        from sftknow_eval.mastery.download import entity_questions

        configured = entity_questions()
    found = FactFiles(Path(configured))
    own_relations, own_aliases = found.beside("relations.yaml"), found.beside("aliases.json")
    given_relations = _given(relations) if relations else own_relations
    given_aliases = _given(aliases) if aliases else own_aliases
    # A data set with relations of its own has nothing to do with EntityQuestions' aliases.
    packaged_aliases = b"{}" if given_relations else (PACKAGED / "aliases.json").read_bytes()
    named = str(relations or ("relations.yaml" if own_relations else "the packaged relations.yaml"))
    return Dataset(
        found,
        found.source.resolve().stem if given_relations else "entity_questions",
        _relations(given_relations or (PACKAGED / "relations.yaml").read_bytes(), named),
        _alias_lists(given_aliases or packaged_aliases, str(aliases or "aliases.json")),
        _templates(found),
    )


def _given(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _templates(found: FactFiles) -> Path | Traversable:
    return found.path_beside("templates.yaml") or PACKAGED / "templates.yaml"


def _relations(content: bytes, name: str) -> dict[str, Relation]:
    try:
        listed = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise DataError(f"{name} is not YAML: {error}") from error
    if not isinstance(listed, dict) or not listed:
        raise DataError(
            f"{name} must list relations: 'P17: {{label: .., domain: id, question: ..}}'."
        )
    faults = [f"{key}: {fault}" for key, entry in listed.items() for fault in _faults(key, entry)]
    if faults:
        raise DataError(f"{name} has faults:\n" + "\n".join(faults))
    ordered = sorted(listed, key=lambda key: int(key[1:]))
    return {
        key: Relation(
            key, str(listed[key]["label"]), listed[key]["domain"], listed[key]["question"]
        )
        for key in ordered
    }


def _faults(key: Any, entry: Any) -> list[str]:
    if not isinstance(key, str) or not key.startswith("P") or not key[1:].isdigit():
        return ["a relation id like P17 was expected"]
    if not isinstance(entry, dict):
        return ["label, domain and question were expected"]
    faults = [f"'{name}' is unknown" for name in entry.keys() - {"label", "domain", "question"}]
    if not isinstance(entry.get("label"), str):
        faults.append("label is missing")
    if entry.get("domain") not in get_args(Domain):
        faults.append(f"domain is {entry.get('domain')!r}; id or ood was expected")
    question = entry.get("question")
    if not isinstance(question, str) or question.count("{subject}") != 1:
        faults.append(f"question is {question!r}; a text with {{subject}} once was expected")
    return faults


def _alias_lists(content: bytes, name: str) -> dict[str, list[str]]:
    try:
        listed = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if not isinstance(listed, dict) or not all(
        isinstance(forms, list) and all(isinstance(f, str) and f.strip() for f in forms)
        for forms in listed.values()
    ):
        raise DataError(f'{name} must be {{"ANSWER": ["ALIAS", ...]}} with no empty alias.')
    return listed


def _rows(content: bytes, name: str) -> list[Any]:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name} is not JSON ({error}); is the file cut off?") from error
    if not isinstance(rows, list):
        raise DataError(f"{name} must be a JSON list of rows.")
    return rows


def _row_fault(row: Any, relation: Relation) -> str | None:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        return "no question"
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
        return "answers are not a list of texts"
    before, after = relation.question.split("{subject}")
    question = row["question"]
    fits = question.startswith(before) and question.endswith(after)
    if not fits or len(question) <= len(before) + len(after):
        return f"'{question}' does not fit the question pattern '{relation.question}'"
    return None
