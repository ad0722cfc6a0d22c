"""Parts of a report: kept, made anew, or missing with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.errors import OutOfSpace, SettingsError
from sftknow_eval.report.parts import Part, kept_part


class _Maker:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.error = error

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        with (folder / "log").open("a") as log:
            log.write("x")
        if self.error is not None:
            raise self.error


def _read(folder: Path) -> str:
    return (folder / "log").read_text()


def test_a_finished_part_is_not_made_again(tmp_path: Path) -> None:
    make = _Maker()
    first = kept_part(tmp_path / "p", {"a": 1}, make, _read)
    assert kept_part(tmp_path / "p", {"a": 1}, make, _read) == first == Part("x")
    assert make.calls == 1


def test_other_inputs_make_it_anew(tmp_path: Path) -> None:
    make = _Maker()
    kept_part(tmp_path / "p", {"a": 1}, make, _read)
    assert kept_part(tmp_path / "p", {"a": 2}, make, _read) == Part("x")
    assert make.calls == 2


def test_a_part_that_fails_is_missing_with_the_reason_and_goes_on(tmp_path: Path) -> None:
    make = _Maker(SettingsError("no dev facts"))
    assert kept_part(tmp_path / "p", {"a": 1}, make, _read) == Part(None, "no dev facts")
    make.error = None
    # What the first try wrote is still there.
    assert kept_part(tmp_path / "p", {"a": 1}, make, _read) == Part("xx")


def test_a_full_disk_ends_the_report(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace):
        kept_part(tmp_path / "p", {}, _Maker(OutOfSpace("full")), _read)
