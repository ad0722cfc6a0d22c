"""Verdicts as JSON and as annotations of GitHub Actions; strangers' texts are escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sftknow_eval.leaderboard.verify import Verdict

_LONGEST = 2_000


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the verdicts for `--format json`."""
    return {
        "format": "sftknow-verdicts/1",
        "refused": sum(bool(verdict.reasons) for verdict in verdicts),
        "verdicts": [
            {
                "path": verdict.path,
                "status": verdict.status,
                "reasons": list(verdict.reasons),
                "flags": [{"kind": flag.kind, "text": flag.text} for flag in verdict.flags],
            }
            for verdict in verdicts
        ],
    }


def github_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield one workflow command for each reason and flag, and one for each row in order."""
    for verdict in verdicts:
        file = f"submissions/{verdict.path}/manifest.json"
        for reason in verdict.reasons:
            yield _command("error", file, "refused", reason)
        for flag in verdict.flags:
            yield _command("warning", file, flag.kind, flag.text)
        if not verdict.reasons:
            yield _command("notice", file, verdict.status, f"{verdict.path}: {verdict.status}")


def _command(kind: str, file: str, title: str, text: str) -> str:
    properties = f"file={_property(file)},title={_property(title)}"
    return f"::{kind} {properties}::{_message(text[:_LONGEST])}"


def _message(text: str) -> str:
    """Return a text that cannot end its command and begin another."""
    return _printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\r\n" else repr(c)[1:-1] for c in text)


def shown(text: str) -> str:
    """Return a stranger's text for a terminal: no control characters, at most 2,000 characters."""
    return _printable(text[:_LONGEST]).replace("\r", "\\r").replace("\n", "\\n")
