"""What the tests of reports share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.report.asked import Asked
from sftknow_eval.report.card import CardRequest, report_card

CopyOf = Callable[..., Path]


@dataclass(frozen=True)
class World:
    """A base with its facts and mastery table, and fine-tunes of it."""

    study: Path
    data: Path
    base: Path
    table: Path
    finetuned: Path
    smaller: Path
    adapter: Path


@dataclass(frozen=True)
class Made:
    """A report that was made, and what it said while it was."""

    out: Path
    json: dict[str, Any]
    markdown: str
    html: str
    progress: list[str]


def asked_of(world: World, **more: Any) -> Asked:
    """Ask about the world's facts, on transformers."""
    return Asked(
        base=str(world.base), mastery=str(world.table), data=str(world.data), backend="hf", **more
    )


def make_card(request: CardRequest, out: Path) -> Made:
    """Make a report and read what was written."""
    said: list[str] = []
    report_card(request, out, said.append)
    texts = [(out / name).read_text() for name in ("report.json", "report.md", "index.html")]
    return Made(out, json.loads(texts[0]), texts[1], texts[2], said)
