"""What each row answered to each fact, for the row's page and for comparing any two rows.

The compare page runs from a disk too, where pages may not fetch files. It loads outcomes as
scripts: each is one call with data that JSON writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.evidence import read_evidence
from sftknow_eval.leaderboard.rows import Row

TEXT_LIMIT = 160


@dataclass(frozen=True, slots=True, eq=False)
class RowFacts:
    """A row's verdicts and answers, in the order of the base's facts.

    Attributes:
        correct_SF: one line a seed, False where not asked; bool.
        asked: which facts the row was asked; bool (facts).
        outputs: of the first seed; empty where not asked.
    """

    correct_SF: np.ndarray
    asked: np.ndarray
    outputs: list[str]

    @property
    def hits(self) -> np.ndarray:
        """Return by how many seeds each fact was answered rightly; int (facts)."""
        counts: np.ndarray = self.correct_SF.sum(axis=0)
        return counts


@dataclass(frozen=True, slots=True)
class Example:
    """One fact with what the base and the row answered."""

    question: str
    answer: str
    stratum: int
    base: str
    row: str


def has_answers(row: Row) -> bool:
    """Return whether a row has answers to show: a submission, or the base itself.

    `base_again` has verdicts of samples only.
    """
    return row.control != "base_again" and (row.entry is None or row.entry.evident)


def row_facts(row: Row, store: BaseStore) -> RowFacts:
    """Return what a row answered; for the base itself, what is in its store."""
    size = len(store.ids)
    asked = np.zeros(size, bool)
    asked[row.asked] = True
    correct_SF = np.zeros((len(row.correct), size), bool)
    correct_SF[:, row.asked] = row.correct
    if row.folder is None or row.entry is None:
        return RowFacts(correct_SF, asked, store.outputs)
    found = read_evidence(row.folder, row.entry.seeds[0].seed).outputs
    outputs = [""] * size
    for i, text in zip(row.asked.tolist(), found, strict=True):
        outputs[i] = text
    return RowFacts(correct_SF, asked, outputs)


def examples(facts: RowFacts, store: BaseStore, limit: int = 8) -> dict[str, list[Example]]:
    """Return facts that every seed lost and that every seed gained, over all strata in turn."""
    always, never = facts.correct_SF.all(axis=0), ~facts.correct_SF.any(axis=0)
    known = store.knows
    return {
        "lost": _spread(known & never & facts.asked, facts, store, limit),
        "gained": _spread(~known & always, facts, store, limit),
    }


def facts_script(store: BaseStore) -> str:
    """Return the facts of a base as a script for the compare page."""
    facts = [
        list(fact)
        for fact in zip(
            *(store.ids, store.strata.tolist(), store.domains, store.questions, store.answers),
            strict=True,
        )
    ]
    return _call("facts", facts)


def outcomes_script(row: Row, facts: RowFacts) -> str:
    """Return a row's outcomes as a script for the compare page: hits as letters, texts."""
    letters = "".join(
        chr(48 + min(hits, 75)) if asked else "."
        for hits, asked in zip(facts.hits.tolist(), facts.asked.tolist(), strict=True)
    )
    texts = [shown(text) for text in facts.outputs]
    return _call(
        "row", {"id": row.id, "seeds": len(facts.correct_SF), "hits": letters, "out": texts}
    )


def shown(text: str) -> str:
    """Return an output on one line, cut to what a table can show."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def _call(kind: str, value: Any) -> str:
    # Everything beyond ASCII is escaped, so that the file reads the same in any encoding.
    return f'sftknowData("{kind}", {json.dumps(value, separators=(",", ":"))});\n'


def _spread(mask: np.ndarray, facts: RowFacts, store: BaseStore, limit: int) -> list[Example]:
    found = np.flatnonzero(mask)
    by_stratum = [found[store.strata[found] == stratum].tolist() for stratum in range(4, -1, -1)]
    chosen = [places[turn] for turn in range(limit) for places in by_stratum if turn < len(places)][
        :limit
    ]
    return [
        Example(
            store.questions[i],
            store.answers[i],
            int(store.strata[i]),
            shown(store.outputs[i]),
            shown(facts.outputs[i]),
        )
        for i in chosen
    ]
