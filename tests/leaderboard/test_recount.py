"""Judging many outputs at once gives the verdicts of judging each; expected: the tasks' own way."""

from __future__ import annotations

import pytest
from board_making import World
from hypothesis import given
from hypothesis import strategies as st

from sftknow_eval.evaluation.prompts import answer_part
from sftknow_eval.leaderboard.asking import special_tokens_of
from sftknow_eval.leaderboard.judging import judge_outputs
from sftknow_eval.leaderboard.manifest_parts import Asking
from sftknow_eval.mastery.matching import contains, strip_special

TOKENS = ("</s>", "<s>", "<|e|>", "[PAD]")
PIECES = (
    *("Rome", "Romé", "Rome\u0301", "Rom", "e", "</", "s>", " ", "\x00", "\n\n", "\nQuestion:"),
    *TOKENS,
)
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
aliases = st.lists(st.sampled_from(("Rome", "Romé", "Zürich", "e")), min_size=1, max_size=3)


@given(
    pairs=st.lists(st.tuples(texts, aliases.map(tuple)), min_size=1, max_size=6),
    style=st.sampled_from(("paper", "plain", "chat", "completion")),
    shots=st.sampled_from((0, 3)),
)
def test_many_outputs_are_judged_like_each(
    pairs: list[tuple[str, tuple[str, ...]]], style: str, shots: int
) -> None:
    asking = Asking.model_validate(
        {
            "style": style,
            "num_fewshot": shots,
            "special_tokens": TOKENS,
            "split": "test",
            "documents": "0" * 64,
            "backend": "hf",
            "dtype": "auto",
            "versions": {},
        }
    )

    expected = [
        contains(answer_part(strip_special(text, TOKENS), asking.style, shots), accepted)
        for text, accepted in pairs
    ]

    found = judge_outputs([text for text, _ in pairs], [a for _, a in pairs], asking)
    assert found.tolist() == expected


@pytest.mark.parametrize("model", ["random", "tiny"])
def test_special_tokens_are_read_as_transformers_reads_them(
    model: str, board_world: World, request: pytest.FixtureRequest
) -> None:
    from sftknow_eval.evaluation.tasks import special_tokens

    folder = board_world.base
    if model == "tiny":
        folder = request.getfixturevalue("tiny_world") / "base"

    assert special_tokens_of(folder) == special_tokens(str(folder))
