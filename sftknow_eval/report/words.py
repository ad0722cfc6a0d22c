"""Findings in words, and numbers as cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftknow_eval.pages.tables import MISSING, Cell, percent

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics.intervals import Estimate
    from sftknow_eval.report.shares import Lost

DOMAINS = {"id": "in-domain", "ood": "out-of-domain"}


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval of shares, in percent."""
    return f"{percent(low, digits)} to {percent(high, digits)}"


def points(difference: float | None, digits: int = 1) -> str:
    """Return a difference of shares in points, with its sign."""
    if difference is None:
        return MISSING
    text = f"{100 * difference:+.{digits}f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def estimate(found: Estimate | None, *, signed: bool = False, digits: int = 1) -> Cell:
    """Return an estimate of a share or a difference of shares, in percent, as a cell."""
    if found is None or found.value is None:
        return Cell(MISSING, tone="muted", title="no facts to tell it from")
    if signed:
        known = found.low is not None and found.high is not None
        note = f"{points(found.low)} to {points(found.high)}" if known else ""
        return Cell(points(found.value, digits), note, sort=found.value)
    text = percent(found.value, digits)
    note = "" if found.low is None else interval(found.low, found.high, digits)
    return Cell(text, note, sort=found.value)


def p_value(p: float | None) -> Cell:
    """Return a p-value as a cell."""
    if p is None:
        return Cell(MISSING, tone="muted", title="no test: nothing differs, or no facts")
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", sort=p)


def number(value: float | None, digits: int = 3) -> Cell:
    """Return a number as a cell."""
    if value is None:
        return Cell(MISSING, tone="muted", title="not measured")
    return Cell(f"{value:.{digits}f}", sort=value)


def count(value: int) -> Cell:
    """Return a count as a cell."""
    return Cell(f"{value:,}", sort=value)


def lost_sentence(label: str, lost: Lost, panel: bool) -> str:
    """Return what a fine-tune lost, in one sentence."""
    if lost.value is None:
        return f"The base knows none of the facts asked, so {label} could lose none."
    whole = ", as estimated for the whole split" if panel else ""
    return (
        f"{label} lost {lost.lost} of the {lost.known} facts that its base knows: "
        f"{percent(lost.value)}%{whole} (95% interval {percent(lost.low)}% to "
        f"{percent(lost.high)}%)."
    )


def difference_sentence(cell: Any, domain: str) -> str:
    """Return how accuracy changed from the base, in one sentence.

    Args:
        cell: of a comparison with the base: the mean of the strata.
        domain: `id` or `ood`.
    """
    found = cell.difference
    if found.value is None:
        return ""
    told = "which chance alone may do" if found.covers_zero else "more than chance alone does"
    return (
        f"{DOMAINS[domain].capitalize()}, accuracy as the mean of the strata went from "
        f"{percent(cell.other.value)}% to {percent(cell.accuracy.value)}%: a difference of "
        f"{points(found.value)} points (95% interval {points(found.low)} to "
        f"{points(found.high)}), {told}."
    )


def point_value(point: Mapping[str, Any], domain: str) -> Mapping[str, Any] | None:
    """Return the mean of the strata of a sweep's point; None where it has none."""
    if point.get("same_as") is not None or not point.get("scores"):
        return None
    mean: Mapping[str, Any] = point["scores"][domain]["alias_acc"]["mean"]
    return mean if mean["value"] is not None else None


def extremes_sentence(lost: Mapping[str, Lost]) -> str:
    """Return which of several fine-tunes lost most and least, in one sentence."""
    known = {label: found.value for label, found in lost.items() if found.value is not None}
    if not known:
        return "The base knows none of the facts asked, so none could be lost."
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[least] == known[most]:
        return f"All {len(known)} fine-tunes lost {percent(known[most])}% of what their base knows."
    return (
        f"Of {len(known)} fine-tunes, {least} lost least of what their base knows "
        f"({percent(known[least])}%) and {most} most ({percent(known[most])}%)."
    )
