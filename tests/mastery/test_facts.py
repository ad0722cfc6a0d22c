"""Facts: what their digest tells apart."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from sftknow_eval.mastery.facts import Fact

FACT = Fact(
    id="P17-test-0003",
    relation="P17",
    domain="id",
    split="test",
    subject="Nørre Å",
    question="Which country is Nørre Å located in?",
    answer="Denmark",
    aliases=("Denmark", "Danmark"),
)


def test_the_digest_is_pinned() -> None:
    # Mastery tables hold it: the same fact must give the same 8 bytes in every release. Expected:
    # SHA-256 over id, question and aliases, joined by U+001F, in UTF-8.
    parts = ("P17-test-0003", "Which country is Nørre Å located in?", "Denmark", "Danmark")
    assert FACT.digest() == hashlib.sha256("\x1f".join(parts).encode()).digest()[:8]
    assert FACT.digest().hex() == "b388121ee54ac497"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "P17-test-0004"},
        {"question": "Which country is Norre A located in?"},
        {"aliases": ("Denmark",)},
        {"aliases": ("Danmark", "Denmark")},
        {"aliases": ("DenmarkDanmark",)},
    ],
)
def test_what_is_asked_or_accepted_changes_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(FACT, **change).digest() != FACT.digest()  # type: ignore[arg-type]


def test_a_fact_is_frozen_and_equal_by_content() -> None:
    assert dataclasses.replace(FACT) == FACT
    assert len({FACT, dataclasses.replace(FACT)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACT.answer = "Norway"  # type: ignore[misc]
