"""The judge. Expected verdicts follow the definitions stated in each docstring."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow_eval.mastery.matching import (
    contains,
    contains_word,
    exact_match,
    strip_special,
    token_f1,
)

RULES = (contains, contains_word, exact_match, token_f1)
# Words with the characters that make trouble: accents in both forms, punctuation, other scripts.
TEXT = st.text(alphabet=st.sampled_from("abR  .,'-ée\u0301\u00f6東京ßİ<>|_1"), max_size=24)
ALIAS = TEXT.filter(lambda text: bool(text.strip()))
ALIASES = st.lists(ALIAS, min_size=1, max_size=3)


@given(TEXT, ALIASES, TEXT, st.sampled_from(["", "NFC", "NFD"]))
def test_more_text_never_undoes_contains(
    text: str, aliases: list[str], more: str, form: Literal["", "NFC", "NFD"]
) -> None:
    text += unicodedata.normalize(form, aliases[-1]) if form else ""
    if contains(text, aliases):
        assert contains(text + more, aliases)
        assert contains(more + text, aliases)


@given(TEXT, ALIAS, TEXT)
def test_contains_is_the_papers_substring_rule(before: str, alias: str, after: str) -> None:
    assert contains(before + alias + after, [alias])
    assert contains(before + unicodedata.normalize("NFD", alias) + after, [alias])


@given(TEXT, ALIASES)
def test_a_whole_word_is_contained(text: str, aliases: list[str]) -> None:
    if contains_word(text, aliases):
        assert contains(text, aliases)
        assert contains_word(text, aliases, ignore_case=True)


@given(TEXT, ALIASES)
def test_f1_is_a_share_and_exact_match_gives_one(text: str, aliases: list[str]) -> None:
    f1 = token_f1(text, aliases)
    assert 0 <= f1 <= 1
    if exact_match(text, aliases) and text.strip():
        assert f1 == 1


@given(ALIAS, ALIAS)
def test_f1_and_exact_match_are_symmetric(one: str, other: str) -> None:
    assert token_f1(one, [other]) == pytest.approx(token_f1(other, [one]))
    assert exact_match(one, [other]) == exact_match(other, [one])


@given(TEXT, ALIASES, ALIAS)
def test_more_aliases_never_undo_a_verdict(text: str, aliases: list[str], more: str) -> None:
    for rule in RULES:
        assert rule(text, [*aliases, more]) >= rule(text, aliases)


@given(st.lists(st.sampled_from(["</s>", "<s>", "Rome", " ", "<|end|>"]), max_size=8))
def test_special_tokens_are_taken_out_and_the_rest_stays(parts: list[str]) -> None:
    special = ["<s>", "</s>", "<|end|>"]
    kept = "".join(part for part in parts if part not in special)
    assert strip_special("".join(parts), special) == kept


@pytest.mark.parametrize(
    ("text", "alias", "contained", "word"),
    [
        (" in Rome, Italy", "Rome", True, True),
        (" Romeo", "Rome", True, False),
        (" rome", "Rome", False, False),
        ("prerome", "rome", True, False),
        ("(UK)", "UK", True, True),
        ("U.S.A.", "U.S.A.", True, True),
        ("Gode\u0301", "Gode", True, False),
        ("Kurt G\u00f6del", "Go\u0308del", True, True),
        ("Kurt Go\u0308del", "G\u00f6del", True, True),
        ("Rome_2", "Rome", True, False),
        ("", "Rome", False, False),
    ],
)
def test_cases_by_hand(text: str, alias: str, contained: bool, word: bool) -> None:
    assert contains(text, [alias]) is contained
    assert contains_word(text, [alias]) is word


def test_case_is_ignored_only_when_asked() -> None:
    assert not contains_word("to ROME", ["Rome"])
    assert contains_word("to ROME", ["Rome"], ignore_case=True)


@pytest.mark.parametrize(
    ("text", "alias", "same"),
    [
        (" The Beatles. ", "beatles", True),
        ("U.S.A.", "USA", True),
        ("New  York\n", "new york", True),
        ("The", "the", True),
        ("The", "An", False),
        ("Rome, Italy", "Rome", False),
    ],
)
def test_exact_match_normalises_as_squad(text: str, alias: str, same: bool) -> None:
    assert exact_match(text, [alias]) is same


def test_f1_by_hand() -> None:
    # 2 shared words of 2 said and 3 wanted: precision 1, recall 2/3, F1 = 0.8.
    assert token_f1("New York", ["New York City"]) == pytest.approx(0.8)
    assert token_f1("nothing", ["New York City"]) == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("aliases", [[], [""], ["Rome", " "], "Rome"])
def test_no_alias_is_an_error_not_a_verdict(rule, aliases) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="aliases"):
        rule("Rome", aliases)
