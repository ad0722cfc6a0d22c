"""A data set: its relations and facts, filtered as in the paper, with every row counted.

Which rows the paper kept was recovered from its totals: of each split the rows with exactly one
answer, and of those that ask the same question, within the relations of one domain, the first.
On EntityQuestions that gives 75,944 / 9,580 / 9,555 ID facts (train, dev, test) and 11,613 OOD
test facts. Within single relations it would be 75,973 ID train facts (P131 and P276 share their
question pattern), and 75,942 if repeated questions went first; within all 24 relations it is the
same, as no question is asked in both domains. What a split keeps depends on that split alone.

Source: section 3.1; Tables 1 and 8 (the totals).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.facts import Domain, Fact, Relation, Split
from sftknow_eval.mastery.relations import SUBJECT, no_text, read_aliases, read_relations, shown

PACKAGED = files("sftknow_eval") / "data" / "entity_questions"
SPLITS: tuple[Split, ...] = get_args(Split)
_PACKAGED_NAME = "entity_questions"


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
    """Facts of the shape of EntityQuestions; a split is read when it is first asked for.

    Attributes:
        name: what records of runs call it.
        source: the folder or zip it is read from.
        relations: its relation list, by number.
        templates_file: its completion templates, or those of EntityQuestions.
        origins: where relations, aliases and templates come from.
    """

    def __init__(
        self,
        file_source: FactFiles,
        name: str,
        relations: dict[str, Relation],
        aliases: dict[str, list[str]],
        templates_file: Path | Traversable,
        origins: dict[str, str],
    ) -> None:
        self.name = name
        self.origins = origins
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
            DataError: a file is missing or holds rows that are not facts, or the split or one
                of `relations` is unknown.

        Source: section 3.1.
        """
        if relations is not None and (unknown := sorted(set(relations) - set(self.relations))):
            raise DataError(
                f"Unknown relation {', '.join(unknown)}: '{self.name}' has "
                f"{', '.join(self.relations)}."
            )
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
        if split not in SPLITS:
            raise DataError(f"Unknown split {split!r}: {', '.join(SPLITS)} were expected.")
        self._files.require(split, self.relations)
        faults: list[str] = []
        facts: list[Fact] = []
        counts: list[RowCount] = []
        asked: set[tuple[Domain, str]] = set()
        for relation in self.relations.values():
            count = RowCount(relation.id, relation.domain, split)
            for number, row in self._rows(relation, split, faults):
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
            raise DataError(
                f"{self.source} holds what are not facts (rows count from 0, as in fact ids):\n"
                f'{shown(faults)}\nA row is {{"question": TEXT, "answers": [TEXT, ...]}}.'
            )
        self._facts[split], self._counts[split] = facts, counts

    def _rows(
        self, relation: Relation, split: Split, faults: list[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the well-formed rows of a file, numbered; what is wrong goes to `faults`."""
        name = f"{relation.id}.{split}.json"
        try:
            rows = json.loads(self._files.rows_file(relation.id, split))
        except (ValueError, RecursionError) as error:
            faults.append(f"{name} is not JSON ({error}); is the file cut off?")
            return
        if not isinstance(rows, list):
            faults.append(f"{name} is not a JSON list of rows")
            return
        before, after = relation.question.split(SUBJECT)
        for number, row in enumerate(rows):
            if fault := _row_fault(row, before, after):
                faults.append(f"{name}, row {number}: {fault}")
            else:
                yield number, row

    def _fact(self, relation: Relation, split: Split, number: int, row: dict[str, Any]) -> Fact:
        before, after = relation.question.split(SUBJECT)
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


def count_facts(source: Path) -> dict[str, int]:
    """Return how many facts a data set holds for probing, as `{"test id": 9555, ...}`."""
    dataset = open_dataset(source)
    return dict(Counter(f"{f.split} {f.domain}" for f in dataset.probe_facts()))


def open_dataset(
    source: str | Path | None = None,
    *,
    relations: Path | None = None,
    aliases: Path | None = None,
) -> Dataset:
    """Open a data set: `source`, else `SFTKNOW_DATA`, else EntityQuestions from the cache.

    Relation list, aliases and templates are those beside `dataset/`, else EntityQuestions' (of
    the aliases: only where the data brings no relation list).

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

        configured = entity_questions(count_facts)
    found = FactFiles(Path(configured))
    listed = _part(found, "relations.yaml", relations)
    # Data that brings its own relations has nothing to do with the aliases of EntityQuestions.
    is_own = found.beside("relations.yaml") is not None
    accepted = _part(found, "aliases.json", aliases, packaged=not is_own)
    own_templates = found.path_beside("templates.yaml")
    return Dataset(
        found,
        _PACKAGED_NAME if listed.packaged else found.name,
        read_relations(listed.content, listed.named),
        read_aliases(accepted.content, accepted.named),
        own_templates or PACKAGED / "templates.yaml",
        {
            "relations": listed.named,
            "aliases": accepted.named,
            "templates": str(own_templates or "packaged templates.yaml"),
        },
    )


@dataclass(frozen=True)
class _Part:
    """A file that belongs to the data: what it holds and where it is from."""

    content: bytes
    named: str
    packaged: bool = False


def _part(found: FactFiles, name: str, given: Path | None, packaged: bool = True) -> _Part:
    if given is not None:
        try:
            return _Part(given.read_bytes(), str(given))
        except OSError as error:
            raise DataError(f"{given} cannot be read: {error.strerror}.") from error
    if (own := found.beside(name)) is not None:
        return _Part(own, str(found.path_beside(name)))
    if packaged:
        return _Part((PACKAGED / name).read_bytes(), f"packaged {name}", packaged=True)
    return _Part(b"{}", "none")


def _row_fault(row: Any, before: str, after: str) -> str | None:
    if not isinstance(row, dict):
        return f"an object was expected, found {_short(row)}"
    question, answers = row.get("question"), row.get("answers")
    if fault := no_text(question):
        return f"question is {'missing' if question is None else fault}"
    if not isinstance(answers, list):
        return f"answers are {'missing' if answers is None else 'not a list: ' + _short(answers)}"
    if fault := next((fault for answer in answers if (fault := no_text(answer))), None):
        return f"an answer is {fault}: {_short(answers)}"
    assert isinstance(question, str)
    fits = question.startswith(before) and question.endswith(after)
    if not fits or not question[len(before) : len(question) - len(after)].strip():
        return f"{_short(question)} does not fit the question pattern '{before}{SUBJECT}{after}'"
    return None


def _short(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) and no_text(value) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
