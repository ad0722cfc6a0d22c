"""Calling the command in this process, through the one place that turns errors into codes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sftknow_eval.cli.app import main


@dataclass(frozen=True)
class Called:
    """What a call of `sftknow` left behind."""

    code: int
    out: str
    err: str


class Sftknow:
    """Calls `sftknow ARGS`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *args: object) -> Called:
        self._monkeypatch.setattr("sys.argv", ["sftknow", *map(str, args)])
        self._monkeypatch.setenv("COLUMNS", "160")
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = self._capsys.readouterr()
        return Called(code, printed.out, printed.err)
