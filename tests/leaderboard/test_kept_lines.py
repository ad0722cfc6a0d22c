"""Values kept between builds: appended, written anew, and never trusted where damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.leaderboard.kept_lines import KeptLines


def keep(path: Path, **values: object) -> None:
    """Keep these values and no others; ones that are there already are read."""
    kept = KeptLines(path, "source")
    for key, value in values.items():
        if kept.get(key) != value:
            kept.put(key, value)
    kept.write()


def held(path: Path, *keys: str) -> list[object]:
    kept = KeptLines(path, "source")
    return [kept.get(key) for key in keys]


def test_values_made_by_other_source_are_not_kept(tmp_path: Path) -> None:
    keep(tmp_path / "cache", key=[1])
    assert held(tmp_path / "cache", "key") == [[1]]
    assert KeptLines(tmp_path / "cache", "other source").get("key") is None


def test_new_values_are_appended_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    keep(path, a=1, b="é\n")
    before, place = path.read_bytes(), path.stat().st_ino
    keep(path, a=1, b="é\n", c=None, d=[0.1])
    assert path.read_bytes().startswith(before)
    assert path.stat().st_ino == place
    assert held(path, "a", "b", "c", "d") == [1, "é\n", None, [0.1]]


def test_a_changed_or_unused_value_is_written_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    keep(path, a=1, b=2)
    keep(path, a=3, b=2)
    assert path.read_text().count("\na ") == 1
    keep(path, b=2)
    assert held(path, "a", "b") == [None, 2]


@pytest.mark.parametrize("end", [b"c 1", b"c \x00\x00", b"\xff\xff\n"])
def test_a_file_that_was_cut_off_is_as_good_as_none(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "cache"
    keep(path, a=1, b=2)
    with path.open("ab") as file:
        file.write(end)
    assert held(path, "a", "b", "c") == [None, None, None]
    keep(path, a=1)
    assert held(path, "a") == [1]


@pytest.mark.parametrize("text", ["{", '"\\ud800"'])
def test_a_value_that_cannot_be_read_is_made_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cache"
    keep(path, a=1, b=2)
    with path.open("a") as file:
        file.write(f"c {text}\n")
    assert held(path, "a", "b", "c") == [1, 2, None]
    keep(path, a=1, b=2, c=3)
    assert held(path, "a", "b", "c") == [1, 2, 3]
