"""Which share of the weights to give back: chosen on the dev split, never on the test split.

Differs: the paper reads the best ratio off the test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import write_json
from sftknow_eval.errors import SettingsError

CHOICE_FORMAT = "sftknow-choice/1"
CHOICE_NAME = "choice.json"


@dataclass(frozen=True, slots=True)
class RatioChoice:
    """A ratio and the reason for it.

    Attributes:
        ratio: percent.
        score: its ID mean of strata on the facts that it was chosen on, 0 to 1.
        why: in words.
    """

    ratio: float
    score: float
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return what `choice.json` holds of it."""
        return asdict(self)


def id_means(sweep: Mapping[str, Any]) -> dict[float, Fraction]:
    """Return the ID mean of strata of every ratio of a sweep that has one of its own.

    Exact, from the counts, so that equal scores are seen to be equal. A ratio that gives the
    same model as a smaller one is left to that one.

    Args:
        sweep: what `sweep.json` holds.
    """
    found = {}
    for point in sweep["points"]:
        if point["same_as"] is None and point["scores"]:
            strata = point["scores"]["id"]["alias_acc"]["strata"]
            shares = [Fraction(cell["n_correct"], cell["n"]) for cell in strata if cell["n"]]
            if shares:
                found[float(point["ratio"])] = sum(shares, Fraction()) / len(shares)
    return found


def choose_ratio(sweep: Mapping[str, Any]) -> RatioChoice:
    """Return the ratio with the best ID mean of strata; of equal ones, the smallest.

    Args:
        sweep: what `sweep.json` holds of a sweep over dev facts.

    Raises:
        SettingsError: no ratio has a score on ID facts, or the facts are those of the test split.
    """
    split = (sweep.get("task") or {}).get("split")
    if split == "test":
        raise SettingsError(
            "A ratio is never chosen on the test split. Sweep over the dev split, too "
            "(--split dev,test)."
        )
    means = id_means(sweep)
    if not means:
        raise SettingsError("No ratio of this sweep has a score on ID facts to choose by.")
    best = max(means.values())
    tied = sorted(ratio for ratio, value in means.items() if value == best)
    why = (
        f"best ID mean of strata on {split} facts, {100 * float(best):.2f}%, of {len(means)} ratios"
    )
    if len(tied) > 1:
        shared = ", ".join(f"{ratio:g}" for ratio in tied)
        why += f"; shared by {shared}: the smallest is taken"
    return RatioChoice(tied[0], float(best), why)


def write_choice(out: Path, sweeps: Mapping[str, Mapping[str, Any]]) -> RatioChoice | None:
    """Write `choice.json` where one of the sweeps is over dev facts, and return the choice.

    Args:
        out: folder to write it to.
        sweeps: of one fine-tune, by the name of their facts; what `sweep.json` holds of each.
    """
    dev = next((s for s in sweeps.values() if (s["task"] or {}).get("split") == "dev"), None)
    if dev is None or not id_means(dev):
        return None
    choice = choose_ratio(dev)
    means = {name: id_means(found).get(choice.ratio) for name, found in sweeps.items()}
    scores = {name: None if mean is None else float(mean) for name, mean in means.items()}
    entry = {"format": CHOICE_FORMAT, "split": "dev", "ratios": sorted(id_means(dev))}
    write_json(out / CHOICE_NAME, entry | choice.as_json() | {"scores": scores})
    return choice
