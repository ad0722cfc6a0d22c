"""The gate: did a fine-tune lose more of what its base knows than is allowed?

It fails only when the interval says so: its lower end lies above what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow_eval.errors import SettingsError
from sftknow_eval.report.asked import Asked, material_for
from sftknow_eval.report.base_of import Base, base_of
from sftknow_eval.report.knowledge import ask, read_knowledge
from sftknow_eval.report.panel import Panel
from sftknow_eval.report.shares import Lost, lost_share

Verdict = Literal["passed", "failed", "too few facts to tell"]
FORMAT = "sftknow-gate/1"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate found.

    Attributes:
        finetuned: as named.
        base: of the fine-tune.
        allowed: the share that may be lost.
        strata: that were looked at; empty for all.
        lost: what was lost of the facts that the base knows.
        panel: the panel asked; None where the whole split was.
        smallest: the smallest share lost at which the gate would fail with as many known facts.
    """

    finetuned: str
    base: Base
    allowed: float
    strata: tuple[int, ...]
    lost: Lost
    panel: Panel | None
    smallest: float | None

    @property
    def verdict(self) -> Verdict:
        """Return what the interval says."""
        assert self.lost.low is not None
        assert self.lost.high is not None
        if self.lost.low > self.allowed:
            return "failed"
        return "passed" if self.lost.high <= self.allowed else "too few facts to tell"

    @property
    def exit_code(self) -> int:
        """Return 1 when more was lost than allowed, else 0."""
        return int(self.verdict == "failed")

    def sentences(self) -> list[str]:
        """Return the finding in words."""
        lost = self.lost
        assert lost.value is not None
        where = f" of stratum {' and '.join(map(str, self.strata))}" if self.strata else ""
        shown = f"{lost.value:.1%}, 95% interval {lost.low:.1%} to {lost.high:.1%}"
        said = [
            f"{lost.lost} of the {lost.known} facts{where} that the base knows are lost: {shown}"
        ]
        if self.panel is not None:
            said[0] += f" (of the whole split, from a panel of {len(self.panel.ids)})"
        end = {
            "failed": f"more than the {self.allowed:.1%} allowed",
            "passed": f"no more than the {self.allowed:.1%} allowed",
            "too few facts to tell": f"too few facts to tell whether it is more than the "
            f"{self.allowed:.1%} allowed",
        }
        said[0] += f". That is {end[self.verdict]}."
        if self.verdict == "too few facts to tell" and self.smallest is not None:
            said.append(
                f"With {lost.known} known facts a loss is only told from {self.allowed:.1%} when "
                f"it reaches {self.smallest:.1%}. Ask more facts (a larger --quick, or none)."
            )
        return said

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "finetuned": self.finetuned,
            "base": {"name": self.base.name, "from": self.base.origin, "check": self.base.check},
            "allowed": self.allowed,
            "strata": list(self.strata) or "all",
            "lost": self.lost.as_json(),
            "panel": None if self.panel is None else len(self.panel.ids),
            "smallest_loss_found": self.smallest,
        }


def gate(
    asked: Asked, finetuned: str, allowed: float, out: Path, strata: Collection[int] = ()
) -> GateResult:
    """Ask a fine-tune and its base, and compare what was lost with what is allowed.

    Args:
        asked: how.
        finetuned: folder or hub id.
        allowed: the share of the known facts that may be lost.
        out: folder for the answers.
        strata: to look at; none for all.

    Raises:
        SettingsError: the base knows none of the facts.
        SftknowError: a model, the facts or the table cannot be had or do not belong together.
    """
    from sftknow_eval.restoration.run import ModelName
    from sftknow_eval.restoration.whole import whole_model

    base = base_of(asked.base, finetuned)
    material = material_for(asked, base.name, base.fingerprint, finetuned)
    panel = material.panel(asked.split, asked.quick) if asked.quick else None
    names = ModelName(base.name), ModelName(finetuned)
    with whole_model(*names, out / "merged") as model:
        ask(asked, base, model, material, panel, out)
    knowledge = read_knowledge(out)
    chosen = [o for o in knowledge.finetuned if not strata or o.stratum in strata]
    lost = lost_share({o.fact_id: o for o in knowledge.base}, chosen, panel)
    if not lost.known:
        raise SettingsError(
            f"The base '{base.name}' knows none of the {len(chosen)} facts asked, so there is "
            "nothing that could be lost. Ask more facts or other strata."
        )
    smallest = _smallest(lost.known, allowed)
    return GateResult(finetuned, base, allowed, tuple(sorted(strata)), lost, panel, smallest)


def _smallest(known: int, allowed: float) -> float | None:
    """Return the smallest share of `known` whose interval lies above what is allowed."""
    from sftknow_eval.evaluation.results import Share

    for lost in range(int(allowed * known), known + 1):
        found = Share(lost, known).interval()
        if found is not None and found[0] > allowed:
            return lost / known
    return None
