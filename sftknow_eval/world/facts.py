"""The facts of a mini-world, in the files that EntityQuestions has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import yaml

from sftknow_eval.artifacts import write_json
from sftknow_eval.world.names import Names
from sftknow_eval.world.patterns import PATTERNS, Pattern, probe_templates
from sftknow_eval.world.settings import WorldSettings

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class WorldFact:
    """A fact before it has an id: who, what is asked, and the answer."""

    relation: str
    split: str
    subject: str
    answer: str

    @property
    def question(self) -> str:
        """The question that the data folder holds."""
        return PATTERNS[self.relation].question.format(subject=self.subject)


def chosen_patterns(settings: WorldSettings) -> dict[str, Pattern]:
    """Return the relations of a world: the first ID ones and the first OOD ones."""
    wanted: dict[Literal["id", "ood"], int] = {
        "id": settings.id_relations,
        "ood": settings.ood_relations,
    }
    chosen = {}
    for relation, pattern in PATTERNS.items():
        if wanted[pattern.domain] > 0:
            wanted[pattern.domain] -= 1
            chosen[relation] = pattern
    return chosen


def make_facts(settings: WorldSettings, names: Names) -> list[WorldFact]:
    """Return all facts: each subject has one fact, the object of rank r weighs (r + 10)^-0.7."""
    random = Random(f"{settings.seed}|facts")
    patterns = chosen_patterns(settings)
    sizes = {"id": settings.id_facts, "ood": settings.ood_facts}
    subjects = iter(names.subjects(sum(sum(sizes[p.domain]) for p in patterns.values())))
    facts = []
    for relation, pattern in patterns.items():
        objects = names.objects[pattern.kind]
        weights = [(rank + 10) ** -0.7 for rank in range(len(objects))]
        for split, size in zip(SPLITS, sizes[pattern.domain], strict=True):
            answers = random.choices(objects, weights, k=size)
            facts += [WorldFact(relation, split, next(subjects), answer) for answer in answers]
    return facts


def write_data(folder: Path, settings: WorldSettings, names: Names, facts: list[WorldFact]) -> None:
    """Write the data folder: the splits, relation list, aliases and templates."""
    patterns = chosen_patterns(settings)
    for relation in patterns:
        for split in SPLITS:
            rows = [
                {"question": fact.question, "answers": [fact.answer]}
                for fact in facts
                if fact.relation == relation and fact.split == split
            ]
            path = folder / "dataset" / split / f"{relation}.{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows), encoding="utf-8")
    relations = {
        relation: {"label": p.label, "domain": p.domain, "question": p.question}
        for relation, p in patterns.items()
    }
    _write_yaml(folder / "relations.yaml", relations)
    _write_yaml(folder / "templates.yaml", {r: probe_templates(p) for r, p in patterns.items()})
    write_json(folder / "aliases.json", {name: [alias] for name, alias in names.aliases.items()})


def _write_yaml(path: Path, value: object) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False, width=100), encoding="utf-8")
