"""Two rows of a board, fact by fact: the counts, and the facts on which they differ.

Two rows are compared on the facts that most seeds of a row answered rightly; the test of the
board's tiers, which takes all seeds and the clusters of facts into account, stands on its page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sftknow_eval.artifacts import digest
from sftknow_eval.evaluation.statistics.significance import mcnemar_p
from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.rows import RankingTable, Row
from sftknow_eval.leaderboard.site.names import table_slug
from sftknow_eval.leaderboard.site.outcomes import RowFacts, shown
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

MAX_PAIRS = 6
MAX_FACTS = 150


@dataclass(frozen=True, slots=True)
class Counts:
    """Facts by who was right.

    Attributes:
        label: what is counted.
        p: McNemar's exact test of `first` against `second`; None where they never differ.
    """

    label: str
    both: int
    first: int
    second: int
    neither: int
    p: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that one row answered and the other did not."""

    fact_id: str
    domain: str
    stratum: int
    question: str
    answer: str
    first: str
    second: str
    first_hits: str
    second_hits: str


def useful_pairs(table: RankingTable) -> list[tuple[Row, Row]]:
    """Return the pairs whose comparison is made ahead: the leaders with what is next to them.

    Every other pair is compared by the page's script.
    """
    rows = [row for row in table.rows if row.folder is not None and not row.control]
    rows = [row for row in rows if row.status != "withdrawn"]
    pairs = [(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2)) if j < len(rows)]
    random = [row for row in table.rows if row.control == "random_restoration"][:1]
    base = [row for row in table.rows if row.control == "base"][:1]
    pairs += [(first, other) for first in rows[:2] for other in (*random, *base)]
    return pairs[:MAX_PAIRS]


def majority(facts: RowFacts) -> np.ndarray:
    """Return whether more than half of the seeds answered a fact rightly; bool (facts)."""
    right: np.ndarray = 2 * facts.hits > len(facts.correct_SF)
    return right


def counts(first: RowFacts, second: RowFacts, store: BaseStore) -> Iterator[Counts]:
    """Yield the counts of each stratum, and of all, for both domains."""
    a, b = majority(first), majority(second)
    domains, asked = np.array(store.domains), first.asked & second.asked
    for domain in DOMAINS:
        inside = asked & (domains == domain)
        if not inside.any():
            continue
        for stratum in range(N_STRATA):
            mask = inside & (store.strata == stratum)
            if mask.any():
                yield _count(f"{domain.upper()}, stratum {stratum}", a[mask], b[mask])
        yield _count(f"{domain.upper()}, all", a[inside], b[inside])


def differences(first: RowFacts, second: RowFacts, store: BaseStore) -> list[Difference]:
    """Return facts on which the rows differ, those the base knew best first."""
    differ = np.flatnonzero((majority(first) != majority(second)) & first.asked & second.asked)
    order = differ[np.argsort(-store.strata[differ], kind="stable")][:MAX_FACTS]
    return [
        Difference(
            store.ids[i],
            store.domains[i].upper(),
            int(store.strata[i]),
            store.questions[i],
            store.answers[i],
            shown(first.outputs[i]),
            shown(second.outputs[i]),
            f"{first.hits[i]} of {len(first.correct_SF)}",
            f"{second.hits[i]} of {len(second.correct_SF)}",
        )
        for i in order
    ]


def _count(label: str, a: np.ndarray, b: np.ndarray) -> Counts:
    both, first, second = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    neither = len(a) - both - first - second
    return Counts(label, both, first, second, neither, mcnemar_p(first, second))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two rows of a table whose comparison is a page of its own."""

    table: RankingTable
    first: Row
    second: Row

    @property
    def href(self) -> str:
        """Return the place of the page."""
        name = digest([table_slug(self.table), self.first.id, self.second.id])[:20]
        return f"compare/{name}.html"


def pairs_of(table: RankingTable) -> list[Pair]:
    """Return the comparisons of a table that are made ahead."""
    return [Pair(table, first, second) for first, second in useful_pairs(table)]
