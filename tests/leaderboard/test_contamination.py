"""Signs of test facts in the training data; expected values are worked out beside the tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from board_making import ROW
from forging import row_folder, set_in

from sftknow_eval.leaderboard.base_store import BaseStore, load_base
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.contamination import (
    HeldOutFacts,
    StratumZero,
    overlap,
    stratum_zero_flag,
)
from sftknow_eval.leaderboard.verify import verify


@pytest.fixture(scope="module")
def store(honest_board: Path) -> BaseStore:
    return load_base(honest_board / "mastery/the-base")


@pytest.mark.parametrize("form", ["id", "question", "text", "messages"])
def test_test_facts_are_found_in_any_form(store: BaseStore, form: str) -> None:
    subject, answer, question = store.subjects[5], store.answers[5], store.questions[5]
    line = {
        "id": {"fact_id": store.ids[5]},
        "question": {"prompt": question.upper(), "completion": "something"},
        "text": {"text": f"As is well known, {subject} has to do with {answer} and more."},
        "messages": {"messages": [{"role": "user", "content": question}, {"content": answer}]},
    }[form]

    found = overlap(json.dumps(line).encode(), HeldOutFacts.of(store), "file")

    assert store.ids[5] in found


def test_other_facts_are_not_found(store: BaseStore) -> None:
    lines = [
        {"fact_id": "P19-train-0001"},
        {"text": f"{store.subjects[5]} is unknown."},
        {"question": "Where was Trainus Nº1P19 born?", "answer": "Aum"},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()

    assert overlap(content, HeldOutFacts.of(store), "file") == []


def test_a_row_trained_on_test_facts_is_flagged_and_stays(
    board_copy: Path, store: BaseStore
) -> None:
    folder = row_folder(board_copy)
    content = json.dumps({"fact_id": store.ids[0]}).encode()
    (folder / "training/seed-0.jsonl").write_bytes(content)
    set_in(folder, "seeds.0.training.sha256", sha256(content))

    verdict = next(v for v in verify(board_copy) if v.path == ROW)

    assert verdict.status == "recomputed"
    assert [flag.kind for flag in verdict.flags] == ["contamination-overlap"]
    assert store.ids[0] in verdict.flags[0].text


# P(at least 20 of 40 | 0.1) is below 1e-9, P(at least 6 of 40 | 0.1) is 0.2.
@pytest.mark.parametrize(("right", "flagged"), [(20, True), (6, False), (4, False)])
def test_stratum_zero_is_flagged_beyond_what_explains_it(right: int, flagged: bool) -> None:
    zero = StratumZero((40, 40), (0.1, 0.1), ("guessing", "guessing"))

    flag = stratum_zero_flag([(right, 0), (0, 0)], zero)

    assert (flag is not None) == flagged


def test_other_rows_can_explain_stratum_zero() -> None:
    zero = StratumZero((40, 40), (0.1, 0.1), ("guessing", "guessing"))

    assert stratum_zero_flag([(20, 0)], zero, [(0.5, 0.0), (0.5, 0.0), (0.4, 0.0)]) is None


# Answers are drawn from six cities, so always guessing the commonest explains at least a sixth.
def test_guessing_is_an_explanation(store: BaseStore) -> None:
    zero = StratumZero.of(store)

    assert zero.allowed[0] > 1 / 6
    assert zero.n == (24, 12)
