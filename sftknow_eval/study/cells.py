"""From groups to runs: one run for each base, stratum, number of facts and draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sftknow_eval.study.config import Group, Study


@dataclass(frozen=True, slots=True)
class Cell:
    """A run to be: which strategy on which facts, by which draw.

    Attributes:
        stratum, n, draw: None where the strategy trains on nothing.
    """

    group: Group
    base: str
    stratum: int | str | None
    n: int | str | None
    draw: int | None

    @property
    def id(self) -> str:
        """Return a name that is a folder's name too, such as `sft_divided-s0-n240-d0`."""
        strategy = self.group.strategy.removesuffix(".yaml").rpartition("/")[2]
        parts = [strategy] if self.base == "base" else [self.base, strategy]
        for letter, value in (("s", self.stratum), ("n", self.n), ("d", self.draw)):
            if value is not None:
                parts.append(f"{letter}{value}")
        return "-".join(parts)


def cells(study: Study, group: Group, trains: bool) -> Iterator[Cell]:
    """Yield the cells of a group.

    Args:
        study: the whole configuration.
        group: one of its groups.
        trains: whether the strategy trains, or is made from a run that does.
    """
    for base in group.bases or tuple(base.id for base in study.bases):
        if not trains:
            yield Cell(group, base, None, None, None)
            continue
        for stratum in group.strata:
            for n in group.n:
                for draw in range(group.draws):
                    yield Cell(group, base, stratum, n, draw)
