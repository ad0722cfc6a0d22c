"""An effect of the paper, and what the interval of the measured one says of it.

The rule is the same for all: *shown* when the 95% interval of the effect lies wholly on the
paper's side of zero; *not shown* when it lies wholly on the other side, or reaches zero and
does not reach the size that the paper reports; *cannot tell* otherwise. Where the paper has
something kept rather than changed, the margin takes the place of zero: *shown* when the interval
lies wholly above a fall of that size, *not shown* when wholly below it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Difference

Verdict = Literal["shown", "not shown", "cannot tell"]
Unit = Literal["points", "nats", ""]
MODEL = "LLaMA-3-8B"
MARGIN = 0.05
"""The largest fall that still counts as kept: 5 points.

Differs: the paper sets none. No cell of its Tables 5, 6 and 11 falls by between 2.9 and 5.5
points, so any margin between these divides its cells in the same way.
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect: what the paper reports, and what was measured.

    Attributes:
        what: the comparison.
        paper: the paper's size of it; `sign` is its direction where it gives no number.
        value: as measured; None where it could not be, with the reason in `why`.
        seeds: whether the interval covers the spread between draws.
        p: of the hypothesis that there is no effect; `p_holm` adjusted within the finding.
        margin: the largest fall that still counts as kept; None where the paper has a change.
    """

    what: str
    sign: Literal[-1, 1]
    paper: float | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: Unit = "points"
    seeds: bool = True
    why: str = ""
    p: float | None = None
    p_holm: float | None = None
    margin: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Return what the interval says."""
        if self.low is None or self.high is None:
            return "cannot tell"
        if self.margin is not None:
            if self.low > -self.margin:
                return "shown"
            return "not shown" if self.high < -self.margin else "cannot tell"
        low, high = sorted((self.sign * self.low, self.sign * self.high))
        if low > 0:
            return "shown"
        if high < 0 or (self.paper is not None and high < self.sign * self.paper):
            return "not shown"
        return "cannot tell"

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Finding:
    """One of the paper's findings and the effects that it is made of.

    Attributes:
        id: short name.
        claim: what the paper found.
        effects: what it amounts to in a study.
        source: where the paper reports it.
    """

    id: str
    claim: str
    effects: tuple[Effect, ...]
    source: str = ""

    @property
    def verdict(self) -> str:
        """Return the verdicts in one word, or how many of them are which."""
        kinds: list[str] = [effect.verdict for effect in self.effects]
        if not kinds:
            return "cannot tell"
        if len(set(kinds)) == 1:
            return kinds[0]
        names = ("shown", "not shown", "cannot tell")
        return ", ".join(f"{kind} {kinds.count(kind)}" for kind in names if kind in kinds)


def adjusted(finding: Finding) -> Finding:
    """Adjust the p-values of a finding's effects by Holm."""
    from sftknow_eval.evaluation.statistics.significance import holm

    values = holm([effect.p for effect in finding.effects])
    pairs = zip(finding.effects, values, strict=True)
    return replace(finding, effects=tuple(replace(effect, p_holm=p) for effect, p in pairs))


def effect_of(what: str, reported: float, found: Difference | None) -> Effect:
    """Return an effect in points; `reported` is the paper's, in percent points."""
    sign: Literal[-1, 1] = -1 if reported < 0 else 1
    if found is None:
        return Effect(what, sign, reported / 100, why="these runs are not in the study")
    bounds = found.value, found.low, found.high
    return Effect(what, sign, reported / 100, *bounds, seeds=found.over_seeds, p=found.p)


def kept_or_fallen(what: str, reported: float, found: Difference | None) -> Effect:
    """Return an effect that is a fall where the paper's is more than the margin, else a keeping.

    Args:
        what: the comparison.
        reported: the paper's difference, in percent points.
        found: as measured.
    """
    if reported / 100 < -MARGIN:
        return effect_of(f"{what}: falls", reported, found)
    effect = effect_of(f"{what}: kept", reported, found)
    return replace(effect, sign=1, margin=MARGIN, p=None)
