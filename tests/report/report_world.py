"""What the tests of reports share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
