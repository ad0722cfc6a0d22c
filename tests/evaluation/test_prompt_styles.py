"""Prompt styles, written out; the paper's prompt is that of its appendix A."""

from __future__ import annotations

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.prompts import Style, answer_part, check_style, question_prompt


@pytest.mark.parametrize(
    ("style", "prompt"),
    [
        ("paper", "<|question|> Where was Ada born? <|answer|>"),
        ("plain", "Question: Where was Ada born?\nAnswer:"),
        ("chat", "Answer in a few words. Where was Ada born?"),
    ],
)
def test_each_style_asks_in_its_own_words(style: Style, prompt: str) -> None:
    assert question_prompt(style, "Where was Ada born?") == prompt


def test_unknown_style_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'fancy' is unknown.*paper, plain, chat, completion"):
        check_style("fancy")


@pytest.mark.parametrize("style", ["paper", "plain", "chat", "completion"])
def test_without_shots_the_whole_output_is_the_answer(style: Style) -> None:
    assert answer_part("\n\nIt was Rome.\n\nIn Italy", style, 0) == "It was Rome.\n\nIn Italy"


def test_a_next_question_of_the_models_own_is_cut_off() -> None:
    assert answer_part(" Rome\nQuestion: Is Paris", "plain", 0) == "Rome"
    assert answer_part(" Rome\nQuestion: Is Paris", "completion", 0) == "Rome\nQuestion: Is Paris"


@pytest.mark.parametrize(("style", "kept"), [("paper", "Rome"), ("chat", "Rome\n\nParis")])
def test_with_shots_the_answer_ends_where_the_next_shot_begins(style: Style, kept: str) -> None:
    assert answer_part("\n\nRome\n\nParis", style, 2) == kept
