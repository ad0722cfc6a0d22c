"""Two outcomes of the same facts: what was kept, lost and gained, or where engines differ.

Source: protocol, "Kept, lost, gained" (ours; the paper has no row for the base model).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome, Share
from sftknow_eval.mastery.facts import DOMAINS, Domain
from sftknow_eval.mastery.table import N_STRATA

Transition = Literal["kept", "lost", "gained", "unknown"]
TRANSITIONS: tuple[Transition, ...] = ("kept", "lost", "gained", "unknown")


def transition(base: bool, finetuned: bool) -> Transition:
    """Return what became of a fact: `unknown` is wrong before and after."""
    if base:
        return "kept" if finetuned else "lost"
    return "gained" if finetuned else "unknown"


@dataclass(frozen=True, slots=True)
class Transitions:
    """Counts of facts by what became of them."""

    kept: int = 0
    lost: int = 0
    gained: int = 0
    unknown: int = 0

    @property
    def n(self) -> int:
        """Return the number of facts."""
        return self.kept + self.lost + self.gained + self.unknown

    @property
    def lost_of_known(self) -> Share:
        """Return the share lost among the facts that the base knew."""
        return Share(self.lost, self.kept + self.lost)

    @property
    def gained_of_unknown(self) -> Share:
        """Return the share gained among the facts that the base did not know."""
        return Share(self.gained, self.gained + self.unknown)

    def as_json(self) -> dict[str, Any]:
        """Return the counts and both shares with their intervals."""
        return {
            **{name: getattr(self, name) for name in TRANSITIONS},
            "n": self.n,
            "lost_of_known": self.lost_of_known.as_json(),
            "gained_of_unknown": self.gained_of_unknown.as_json(),
        }


def transitions(
    base: Sequence[Outcome], finetuned: Sequence[Outcome]
) -> dict[Domain, list[Transitions]]:
    """Return the transitions by domain and stratum; the sixth entry is the whole domain.

    Raises:
        SettingsError: the outcomes are not of the same facts.
    """
    counts: Counter[tuple[str, int, Transition]] = Counter()
    for before, after in _pairs(base, finetuned):
        kind = transition(before.recalled, after.recalled)
        counts[after.domain, after.stratum, kind] += 1
        counts[after.domain, N_STRATA, kind] += 1
    return {
        domain: [
            Transitions(**{kind: counts[domain, stratum, kind] for kind in TRANSITIONS})
            for stratum in range(N_STRATA + 1)
        ]
        for domain in DOMAINS
    }


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two evaluations of the same facts give the same verdicts.

    Attributes:
        agreeing: facts with the same `alias_acc` verdict, as a share.
        same_output: facts with the same output text, as a share.
        differing: the pairs whose verdicts differ.
    """

    agreeing: Share
    same_output: Share
    differing: tuple[tuple[Outcome, Outcome], ...]


def compare_facts(one: Sequence[Outcome], other: Sequence[Outcome]) -> Agreement:
    """Return on which facts two evaluations, say by two engines, agree.

    Raises:
        SettingsError: the outcomes are not of the same facts.
    """
    pairs = _pairs(one, other)
    differing = tuple((a, b) for a, b in pairs if a.recalled != b.recalled)
    same = sum(a.output.strip() == b.output.strip() for a, b in pairs)
    return Agreement(
        Share(len(pairs) - len(differing), len(pairs)), Share(same, len(pairs)), differing
    )


def _pairs(one: Sequence[Outcome], other: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    left: Mapping[str, Outcome] = {outcome.fact_id: outcome for outcome in one}
    right: Mapping[str, Outcome] = {outcome.fact_id: outcome for outcome in other}
    if left.keys() != right.keys():
        different = sorted(left.keys() ^ right.keys())
        raise SettingsError(
            f"The two evaluations are not of the same facts: {len(different)} are in one only, "
            f"for example {', '.join(different[:5])}. Evaluate both with the same --split, "
            "--limit and data."
        )
    return [(left[name], right[name]) for name in sorted(left)]
