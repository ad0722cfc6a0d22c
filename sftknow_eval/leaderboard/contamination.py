"""Signs that test facts were in the training data: overlap, and knowledge from nowhere.

Two guards. *Overlap*: provided fact ids or texts are compared with the test facts. *Stratum 0*:
the base gave none of these facts in any sample, so a fine-tune that saw none of them can be right
by guessing only. A row is flagged when a seed is right more often than the most generous of these
explanations allows, by a one-sided exact binomial test at 0.001 (Bonferroni over seeds and both
domains):

    the base's own greedy answers     upper 99% limit (Clopper and Pearson)
    too few samples                   a fact that was missed n times may still come 3/n of the time
    guessing without the subject      always the commonest answer of each relation
    other rows of the same base       their median, where there are at least three

A flag is a sign to look at, no proof: the row stays, with the flag on it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.bounded_json import parse_bounded
from sftknow_eval.leaderboard.rows import Flag
from sftknow_eval.mastery.table import N_STRATA

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.base_store import BaseStore

LEVEL = 0.001
TRAINING_LIMIT = 64 << 20
_LINE_LIMIT = 64 << 10
_FEWEST_OTHERS = 3
_FEWEST_FACTS = 10
_SHOWN = 3
_WORD = re.compile(r"\w+")
_ID_LINE = re.compile(rb'\{"fact_id": ?"([^"\\]*)"\}')


@dataclass(frozen=True, slots=True)
class HeldOutFacts:
    """The test facts of a base, as training data is searched for them."""

    ids: frozenset[str]
    by_question: dict[str, str]
    by_first_word: dict[str, list[tuple[str, tuple[str, ...], str]]]

    @classmethod
    def of(cls, store: BaseStore) -> HeldOutFacts:
        """Return the test facts of a store."""
        by_first_word = defaultdict(list)
        for name, subject, aliases in zip(store.ids, store.subjects, store.aliases, strict=True):
            if found := _WORD.search(subject):
                by_first_word[found.group()].append((subject, aliases, name))
        questions = {
            _plain(question): name
            for name, question in zip(store.ids, store.questions, strict=True)
        }
        return cls(frozenset(store.ids), questions, dict(by_first_word))

    def stated_in(self, text: str) -> Iterator[str]:
        """Yield the ids of the facts whose question, or subject and answer, stand in a text."""
        if found := self.by_question.get(_plain(text)):
            yield found
        for word in dict.fromkeys(_WORD.findall(text)):
            for subject, aliases, name in self.by_first_word.get(word, ()):
                if subject in text and any(alias in text for alias in aliases):
                    yield name


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def overlap(content: bytes, tests: HeldOutFacts, name: str) -> list[str]:
    """Return the ids of the test facts that training data holds, sorted.

    Args:
        content: JSON lines; `{"fact_id": ...}`, or any object whose texts are searched.
        tests: the test facts.
        name: what errors call the file.

    Raises:
        SubmissionError: a line is too long or no JSON object.
    """
    found: set[str] = set()
    for number, line in enumerate(content.splitlines(), 1):
        if len(line) > _LINE_LIMIT:
            raise SubmissionError(f"{name}: line {number} has more than {_LINE_LIMIT:,} bytes.")
        if only_id := _ID_LINE.fullmatch(line):
            found.update({only_id[1].decode("utf-8", "replace")} & tests.ids)
            continue
        if not line.strip():
            continue
        value = _line(line, f"{name}, line {number}")
        fact_id = value.get("fact_id")
        if isinstance(fact_id, str) and fact_id in tests.ids:
            found.add(fact_id)
        if len(value) > 1 or not isinstance(fact_id, str):
            texts = [text for key, text in _texts(value) if key != "fact_id"]
            for text in (*texts, " ".join(texts)):
                found.update(tests.stated_in(text))
    return sorted(found)


def _line(line: bytes, name: str) -> dict[str, Any]:
    value = parse_bounded(line, name)
    if not isinstance(value, dict):
        raise SubmissionError(f"{name} is not a JSON object.")
    return value


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, key)


def overlap_flag(found: Sequence[str], n_tests: int) -> Flag | None:
    """Return the flag of a row whose training data holds test facts."""
    if not found:
        return None
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Flag(
        "contamination-overlap",
        f"The provided training data holds {len(found)} of the {n_tests} test facts: "
        f"{', '.join(found[:_SHOWN])}{more}.",
    )


@dataclass(frozen=True, slots=True)
class StratumZero:
    """What a base's stratum 0 can yield without training on it, by domain (ID, OOD).

    Attributes:
        n: facts.
        allowed: the highest share that the base itself and guessing explain.
        why: the explanation that allows most.
    """

    n: tuple[int, int]
    allowed: tuple[float, float]
    why: tuple[str, str]

    @classmethod
    def of(cls, store: BaseStore) -> StratumZero:
        """Return what a base's store explains."""
        n, allowed, why = [], [], []
        for domain in (0, 1):
            inside = store.code == domain * N_STRATA
            reasons = _explanations(store, inside)
            best = max(reasons, key=lambda reason: reasons[reason])
            n.append(int(inside.sum()))
            allowed.append(reasons[best])
            why.append(best)
        return cls((n[0], n[1]), (allowed[0], allowed[1]), (why[0], why[1]))


def _explanations(store: BaseStore, inside: np.ndarray) -> dict[str, float]:
    from scipy.special import betaincinv

    n, right = int(inside.sum()), int(store.knows[inside].sum())
    limit = 1.0 if right >= n else float(betaincinv(right + 1, n - right, 0.99))
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for place in np.flatnonzero(inside):
        answers[store.relations[place]][store.answers[place]] += 1
    guessed = sum(counts.most_common(1)[0][1] for counts in answers.values())
    return {
        "the base's own answers": limit,
        "the number of samples": min(3 / store.table.meta.n_samples, 1.0),
        "guessing the commonest answer": guessed / n if n else 1.0,
    }


def stratum_zero_flag(
    right: Sequence[tuple[int, int]],
    zero: StratumZero,
    shares: Sequence[tuple[float, float]] | np.ndarray = (),
    own: int | None = None,
) -> Flag | None:
    """Return the flag of a row that knows more of stratum 0 than can be explained.

    Args:
        right: right facts of stratum 0 by seed, for ID and OOD.
        zero: what the base and guessing explain.
        shares: the share right of rows of the base, for ID and OOD.
        own: which of them is the row itself; None where it is not among them.
    """
    from scipy.special import bdtrc

    for domain, label in enumerate(("in-domain", "out-of-domain")):
        n, allowed, why = zero.n[domain], zero.allowed[domain], zero.why[domain]
        most = max((counts[domain] for counts in right), default=0)
        if n < _FEWEST_FACTS or most <= allowed * n:
            continue
        if len(shares) - (own is not None) >= _FEWEST_OTHERS:
            others = np.asarray(shares)[:, domain]
            median = float(np.median(others if own is None else np.delete(others, own)))
            allowed, why = max((allowed, why), (median, "other rows of the base"))
        if most <= allowed * n:
            continue
        p = float(bdtrc(most - 1, n, allowed))
        if p * 2 * len(right) < LEVEL:
            return Flag(
                "contamination-stratum-0",
                f"A seed is right on {most} of the {n} {label} facts that the base never gave; at "
                f"most {100 * allowed:.1f}% is explained ({why}). One-sided binomial test, "
                f"p = {p:.1g}.",
            )
    return None


def training_lines(fact_ids: Sequence[str]) -> bytes:
    """Return the training file that lists fact ids."""
    return "".join(f"{json.dumps({'fact_id': name})}\n" for name in fact_ids).encode()
