"""The training record as others read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.artifacts import write_json
from sftknow_eval.errors import DataError
from sftknow_eval.record import RECORD_NAME, TrainingRecord, read_record


def test_a_folder_without_a_record_has_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "not readable as JSON"), ("[]", "record: "), ('{"n": 1, "x": 2}', "x: Extra inputs")],
)
def test_a_malformed_record_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / RECORD_NAME).write_text(text)
    with pytest.raises(DataError, match=complaint):
        read_record(tmp_path)


# As `sftknow train` wrote it before there were strategies.
EARLIER = {
    **{"format": "sftknow-training/1", "strategy": "sft", "prompt": "paper", "base": "b"},
    **{"revision": None, "base_fingerprint": "f", "mastery_digest": "m", "data": "d"},
    **{"data_source": "s", "facts_digest": "x", "stratum": 0, "n": 1, "seed": 0},
    **{"fact_ids": ["P17-train-0000"], "hyperparameters": {"epochs": 1.0}, "versions": {}},
    **{"saved_dtype": "float32", "steps": 1, "losses": [[1, 2.0]]},
}


def test_a_record_of_before_there_were_strategies_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / RECORD_NAME, EARLIER)
    record = read_record(tmp_path)
    assert record is not None
    assert (record.strategy, record.adapter, record.resumed_at) == ("sft", None, ())
    assert record.style == "paper"


def test_prompts_of_ones_own_are_no_style_to_ask_facts_in(tmp_path: Path) -> None:
    write_json(tmp_path / RECORD_NAME, EARLIER | {"prompt": "own", "stratum": None})
    record = read_record(tmp_path)
    assert record is not None
    assert record.style is None


def test_what_only_tells_of_a_run_makes_no_difference() -> None:
    record = TrainingRecord.model_validate(EARLIER)
    again = record.model_copy(
        update={"resumed_at": (3,), "processes": 2, "strategy_digest": "d", "versions": {"a": "1"}}
    )
    assert again.differences(record.settings()) == []
    other = record.model_copy(update={"adapter": {"type": "LORA"}})
    assert [line.split(":")[0] for line in other.differences(record.settings())] == ["adapter"]
