"""From groups to runs: one run for each base, stratum, number of facts and draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sftknow_eval.study.config import Group, Study

if TYPE_CHECKING:
    from sftknow_eval.training.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Cell:
    """A run to be: which strategy on which facts, by which draw.

    Attributes:
        stratum, n, draw: None where nothing is trained on and nothing is derived from a training.
    """

    strategy: str
    base: str
    stratum: int | str | None = None
    n: int | str | None = None
    draw: int | None = None

    @property
    def id(self) -> str:
        """Return a name that is a folder's name too, such as `sft_divided-s0-n240-d0`."""
        parts = [self.strategy] if self.base == "base" else [self.base, self.strategy]
        for letter, value in (("s", self.stratum), ("n", self.n), ("d", self.draw)):
            if value is not None:
                parts.append(f"{letter}{value}")
        return "-".join(parts)

    def of(self, strategy: str, draw: int | None = None) -> Cell:
        """Return the cell of another strategy on the same facts, or of another draw."""
        return replace(self, strategy=strategy, draw=self.draw if draw is None else draw)


def cells(study: Study, group: Group, strategy: Strategy) -> Iterator[Cell]:
    """Yield the cells of a group."""
    for base in group.bases or tuple(base.id for base in study.bases):
        if not (strategy.is_trained or strategy.derived_from):
            yield Cell(strategy.name, base)
            continue
        for stratum in group.strata or (strategy.facts.stratum,):
            for n in group.n or (strategy.facts.n,):
                for draw in range(group.draws):
                    yield Cell(strategy.name, base, stratum, n, draw)
