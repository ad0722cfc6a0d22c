"""Files and folders are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftknow_eval.artifacts import atomic_folder, atomic_path, digest, read_json, write_json
from sftknow_eval.errors import DataError, OutOfSpace


def _fail_halfway(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_file_keeps_its_content_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"n": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        _fail_halfway(partial)
    assert read_json(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_appears_with_all_that_is_in_it_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "model") as partial:
        _fail_halfway(partial / "config.json")
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "config.json").write_text("{}")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "config.json").is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_with_the_thing(tmp_path: Path, number: int) -> None:
    for writing in (atomic_path, atomic_folder):
        with pytest.raises(OutOfSpace, match="thing"), writing(tmp_path / "thing"):
            raise OSError(number, os.strerror(number))
        # As the safetensors library reports it.
        text = f"I/O error: No space left on device (os error {number})"
        if writing is atomic_folder:
            with pytest.raises(OutOfSpace, match="thing"), writing(tmp_path / "thing"):
                raise RuntimeError(text)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_removed_and_a_running_ones_is_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = tmp_path / f".model.{ended.pid}.partial"
    running = tmp_path / f".model.{os.getppid()}.partial"
    killed.mkdir()
    running.mkdir()
    with atomic_folder(tmp_path / "model"):
        pass
    assert not killed.exists()
    assert running.exists()


def test_a_digest_is_of_the_content_and_not_of_its_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    for name in ("cut.json", "none.json"):
        with pytest.raises(DataError, match=name):
            read_json(tmp_path / name)
