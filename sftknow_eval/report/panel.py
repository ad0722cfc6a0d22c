"""A quick look: a panel of facts in place of a whole split, spread over the strata."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftknow_eval.errors import SettingsError

if TYPE_CHECKING:
    from sftknow_eval.mastery.facts import Fact

Group = tuple[str, int]  # domain and stratum
SMALLEST = 10


@dataclass(frozen=True, slots=True)
class Panel:
    """The facts of a quick look.

    Attributes:
        ids: of the facts.
        sizes: how many facts each domain and stratum has in the whole split.
        taken: how many of them are in the panel.
    """

    ids: tuple[str, ...]
    sizes: Mapping[Group, int]
    taken: Mapping[Group, int]

    def weight(self, group: Group) -> float:
        """Return how many facts of the split one of the panel stands for."""
        return self.sizes[group] / self.taken[group]

    @property
    def total(self) -> int:
        """Return the number of facts in the whole split."""
        return sum(self.sizes.values())


def draw_panel(facts: Sequence[Fact], strata: Mapping[str, int], n: int) -> Panel:
    """Return a panel of `n` facts: as many of each domain and stratum as these allow.

    Within a group facts are taken in the order of their digests, so that a panel is the same
    each time, mixes the relations, and holds every smaller panel of the same split.

    Raises:
        SettingsError: too few facts to say anything.
    """
    if n < SMALLEST:
        raise SettingsError(f"--quick {n}: a panel needs at least {SMALLEST} facts.")
    groups: defaultdict[Group, list[Fact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.digest()):
        if fact.id in strata:
            groups[fact.domain, strata[fact.id]].append(fact)
    sizes = {group: len(members) for group, members in sorted(groups.items())}
    taken = _shared_out(sizes, n)
    ids = [fact.id for group, count in taken.items() for fact in groups[group][:count]]
    return Panel(tuple(ids), sizes, {group: count for group, count in taken.items() if count})


def _shared_out(sizes: Mapping[Group, int], n: int) -> dict[Group, int]:
    """Share `n` out evenly over the groups; what a small group cannot take goes to others."""
    taken: Counter[Group] = Counter()
    left = min(n, sum(sizes.values()))
    while left:
        open_groups = [group for group, size in sizes.items() if taken[group] < size]
        each = max(1, left // len(open_groups))
        for group in open_groups:
            more = min(each, sizes[group] - taken[group], left)
            taken[group] += more
            left -= more
    return {group: taken[group] for group in sizes}
