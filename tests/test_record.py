"""The training record as others read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.errors import DataError
from sftknow_eval.record import RECORD_NAME, read_record


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
