"""The judge. Expected verdicts follow the definitions stated in each docstring."""

from __future__ import annotations

import timeit
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


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
def test_contains_is_more_than_plain_containment_only_by_the_form_of_accents(
    text: str, aliases: list[str]
) -> None:
    aliases = [alias for alias in aliases if alias.strip()] or ["a"]
    found = contains(text, aliases)
    assert found or not any(alias in text for alias in aliases)
    # What is found as it is spelt or not at all once both sides have one form.
    if found:
        forms = [(unicodedata.normalize(f, text), f) for f in ("NFC", "NFD")]
        spelt = [a in text for a in aliases]
        spelt += [unicodedata.normalize(f, a) in t for t, f in forms for a in aliases]
        assert any(spelt)


@given(st.text(st.characters(max_codepoint=127), max_size=20), st.text("abc .", min_size=1))
def test_contains_of_ascii_is_the_plain_operator(text: str, alias: str) -> None:
    if alias.strip():
        assert contains(text, [alias]) == (alias in text)


@given(TEXT, ALIAS, TEXT)
def test_a_word_between_spaces_is_found(before: str, alias: str, after: str) -> None:
    assert contains_word(f"{before} {alias} {after}", [alias])
    assert contains_word(f"({alias}).", [alias])


@given(
    TEXT, st.sampled_from(["Rome", "東京", "Go\u0308del", "2001"]), st.sampled_from("aé東1_ß\u0301")
)
def test_a_letter_or_digit_at_either_end_makes_it_no_word(
    text: str, alias: str, letter: str
) -> None:
    assert not contains_word(f"{alias}{letter}", [alias])
    if unicodedata.category(letter)[0] != "M":  # a mark at the start belongs to nothing
        assert not contains_word(f"{letter}{alias}", [alias])
    assert contains_word(f"{alias}{letter} {alias}", [alias])  # a later one counts


@given(TEXT, ALIASES)
def test_f1_is_a_share_and_exact_match_gives_one(text: str, aliases: list[str]) -> None:
    f1 = token_f1(text, aliases)
    assert 0 <= f1 <= 1
    if exact_match(text, aliases):
        assert f1 == 1


def squad(text: str) -> list[str]:
    """The words that SQuAD compares, as its definition says, for ASCII."""
    bare = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [word for word in bare.split() if word not in ("a", "an", "the")]


SENTENCE = st.text(st.sampled_from("the an' USA.,-_\n1"), max_size=16)


@given(SENTENCE, SENTENCE.filter(squad))
def test_exact_match_and_f1_are_those_of_squad_on_ascii(text: str, alias: str) -> None:
    said, wanted = squad(text), squad(alias)
    assert exact_match(text, [alias]) == (said == wanted)
    shared = sum(min(said.count(word), wanted.count(word)) for word in set(wanted))
    f1 = 2 * shared / (len(said) + len(wanted))  # = 2PR / (P + R)
    assert token_f1(text, [alias]) == pytest.approx(f1)


@given(TEXT, ALIASES)
def test_f1_is_that_of_the_best_alias_and_verdicts_those_of_any(
    text: str, aliases: list[str]
) -> None:
    assert token_f1(text, aliases) == max(token_f1(text, [alias]) for alias in aliases)
    for rule in (contains, contains_word, exact_match):
        assert rule(text, aliases) == any(rule(text, [alias]) for alias in aliases)


@given(TEXT, st.sampled_from(["NFC", "NFD"]), ALIASES)
def test_exact_match_and_f1_do_not_depend_on_the_form_of_accents(
    text: str, form: Literal["NFC", "NFD"], aliases: list[str]
) -> None:
    other = unicodedata.normalize(form, text)
    assert exact_match(text, aliases) == exact_match(other, aliases)
    assert token_f1(text, aliases) == token_f1(other, aliases)


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


@given(TEXT, st.lists(TEXT, max_size=3))
def test_of_special_tokens_alone_something_is_taken(text: str, special: list[str]) -> None:
    stripped = strip_special(text, special)
    assert len(stripped) <= len(text)
    if not any(token and token in text for token in special):
        assert stripped == text


@pytest.mark.parametrize(
    ("text", "special", "left"),
    [
        # The longest at a place: <|end|> is no <| with the text end|> after it.
        ("Rome<|end|>", ["<|", "<|end|>"], "Rome"),
        # What meets where one was taken out is the model's own text.
        ("<|en</s>d|>", ["</s>", "<|end|>"], "<|end|>"),
        ("<s> Paris</s></s>", ("<s>", "</s>"), " Paris"),
        ("a.b", ["."], "ab"),
        ("Rome", [], "Rome"),
        ("Rome", [""], "Rome"),
        ("", ["<s>"], ""),
    ],
)
def test_special_tokens_by_hand(text: str, special: list[str], left: str) -> None:
    assert strip_special(text, special) == left


def test_special_tokens_inside_an_answer_hide_it_until_they_are_taken_out() -> None:
    text = " Pa</s>ris<|end|>"
    assert not contains(text, ["Paris"])
    assert contains(strip_special(text, ["</s>", "<|end|>"]), ["Paris"])


def test_one_special_token_is_no_list() -> None:
    with pytest.raises(ValueError, match="special tokens must be a list"):
        strip_special("a</s>", "</s>")


def test_verdicts_of_a_full_probe_take_minutes_not_hours() -> None:
    text = " the United Kingdom of Great Britain, a country in the north-west of Europe that has"
    aliases = ("United States of America", "USA", "United States")
    spent = min(timeit.repeat(lambda: contains(text, aliases), number=20_000, repeat=5)) / 20_000
    # 106,692 facts x 210 completions; about 0.4 microseconds each on one slow core.
    assert spent * 22_405_320 < 120


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
