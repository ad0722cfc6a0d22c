"""Facts: EntityQuestions, or any data laid out like it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Domain = Literal["id", "ood"]
Split = Literal["train", "dev", "test"]

DOMAINS: tuple[Domain, ...] = ("id", "ood")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation and the one question that asks for it.

    Attributes:
        id: the Wikidata property, such as `P17`.
        label: a few words that name it.
        domain: `id` (trained on) or `ood` (never trained on).
        question: the question pattern, with `{subject}` exactly once.
    """

    id: str
    label: str
    domain: Domain
    question: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: a subject, a relation and its single object.

    Attributes:
        id: relation, split and row in the official file: `P17-test-0003`.
        aliases: every accepted form of the answer, the answer itself first.
    """

    id: str
    relation: str
    domain: Domain
    split: Split
    subject: str
    question: str
    answer: str
    aliases: tuple[str, ...]

    def digest(self) -> bytes:
        """Return 8 bytes that recognise the fact: id, question and accepted answers."""
        text = "\x1f".join((self.id, self.question, *self.aliases))
        return hashlib.sha256(text.encode()).digest()[:8]
