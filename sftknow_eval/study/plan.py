"""A study's plan: its steps, the runs that they make up, and where its bases are."""

from __future__ import annotations

from dataclasses import dataclass, field

from sftknow_eval.study.cells import Cell
from sftknow_eval.study.config import Study
from sftknow_eval.study.step import Step

STATISTICS, REPORT, BOARD = "statistics", "report", "board"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the study: its cell, and the steps that belong to it, by what they yield."""

    cell: Cell
    kind: str
    steps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps by name, the runs that they make up by id, and where each base is."""

    study: Study
    steps: dict[str, Step]
    runs: dict[str, Run]
    places: dict[str, Places]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a base, its facts and its mastery table are."""

    base: str
    mastery: str
    data: str | None
    needs: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, str]:
        """Return the locations by role."""
        found = {"base": self.base, "mastery": self.mastery}
        return found | ({"data": self.data} if self.data else {})
