"""The report card's first screen: the numbers that matter most, and what was examined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sftknow_eval.evaluation.results import Share, mean_of_strata
from sftknow_eval.mastery.table import N_STRATA
from sftknow_eval.pages.tables import Cell, Column, Table, percent
from sftknow_eval.report.document import Block, Definitions, Paragraph, Tabled, Tiles
from sftknow_eval.report.words import DOMAINS, count, estimate, interval

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Comparison
    from sftknow_eval.report.asked import Material
    from sftknow_eval.report.examine import Examined
    from sftknow_eval.report.panel import Panel
    from sftknow_eval.report.shares import Lost


def opening(
    several: Sequence[Examined], lost: Mapping[str, Lost], comparison: Comparison
) -> list[Block]:
    """Return the numbers that matter most: tiles for one fine-tune, a table for several."""
    if len(several) > 1:
        return [Tabled(_overview(several, lost, comparison))]
    (examined,) = several
    found = lost[examined.label]
    tiles = [
        (
            "Lost",
            f"{percent(found.value)}%" if found.value is not None else "none known",
            f"of {found.known} facts that the base knows; {interval(found.low, found.high)}",
        )
    ]
    for domain, cells in comparison.pair(examined.label).domains.items():
        mean, pooled = cells.mean, cells.pooled
        tiles.append(
            (
                f"Accuracy, {DOMAINS[domain]}",
                f"{percent(mean.accuracy.value)}%",
                f"base {percent(mean.other.value)}%; mean of the strata, {pooled.counts.n} facts",
            )
        )
    part = examined.restoration.value
    if part is not None and part.chosen is not None:
        tiles.append(
            ("Best given back", f"{part.chosen:g}%", "of the weights, chosen on the dev facts")
        )
    return [Tiles(tiles)]


def _overview(
    several: Sequence[Examined], lost: Mapping[str, Lost], comparison: Comparison
) -> Table:
    rows = []
    for examined in several:
        found, pair = lost[examined.label], comparison.pair(examined.label)
        cells = [Cell(examined.label), Cell(examined.nature), count(found.known)]
        cells.append(Cell(percent(found.value), interval(found.low, found.high)))
        for domain in DOMAINS:
            there = pair.domains.get(domain)  # type: ignore[call-overload]
            cells.append(estimate(there.mean.accuracy if there else None))
        rows.append(cells)
    first = comparison.pair(several[0].label).domains
    base = [Cell("the base"), Cell("base"), Cell(""), Cell("")]
    base += [estimate(first[domain].mean.other if domain in first else None) for domain in DOMAINS]
    columns = [
        *(Column("model", numeric=False), Column("what it is", numeric=False)),
        *map(Column, ("known to the base", "lost of known")),
        *(Column(f"accuracy, {name}") for name in DOMAINS.values()),
    ]
    note = "Percent with 95% intervals; accuracy is the mean of the strata."
    return Table("overview", "The fine-tunes at a glance", columns, [*rows, base], note=note)


def definitions(several: Sequence[Examined], material: Material, split: str) -> list[Block]:
    """Return what was examined and how."""
    blocks: list[Block] = []
    first = several[0]
    meta = material.table.meta
    blocks.append(
        Definitions(
            [
                ("Base", f"{first.base.name} ({first.base.origin}); weights {_brief(first)}"),
                ("Facts", f"{material.dataset.name}, {split} split: {len(first.knowledge.base)}"),
                (
                    "Mastery",
                    f"strata by {meta.n_samples} completions of each fact by '{meta.base}': 0 is "
                    "never recalled, 4 recalled in more than three quarters",
                ),
                (
                    "Right",
                    "the answer, written greedily, contains the object or an alias of it",
                ),
            ]
        )
    )
    for examined in several:
        record = examined.knowledge.summary["finetuned"]
        blocks.append(
            Definitions(
                [
                    (examined.label, f"{examined.name}, a {examined.nature}"),
                    ("Its base", f"{examined.base.origin}; {examined.base.check}"),
                    ("Asked", f"prompt style '{record['style']}' ({record['style_from']})"),
                    ("Engine", f"{record['backend']}"),
                ]
            )
        )
    return blocks


def _brief(examined: Examined) -> str:
    return examined.base.fingerprint[:16]


def panel_widths(several: Sequence[Examined], panel: Panel, split: str) -> list[Block]:
    """Return how wide a panel makes the intervals, beside the whole split."""
    rows = []
    for examined in several:
        for domain, name in DOMAINS.items():
            strata = examined.knowledge.summary["scores"]["finetuned"][domain]["alias_acc"][
                "strata"
            ]
            asked = [Share(cell["n_correct"], cell["n"]) for cell in strata]
            whole = [
                Share(
                    round((share.value or 0) * panel.sizes.get((domain, s), 0)),
                    panel.sizes.get((domain, s), 0) if share.n else 0,
                )
                for s, share in enumerate(asked)
            ]
            if not any(share.n for share in asked):
                continue
            cells = [Cell(examined.label), Cell(name), count(sum(share.n for share in asked))]
            cells += [Cell(_half_width(asked)), count(sum(share.n for share in whole))]
            rows.append([*cells, Cell(_half_width(whole))])
    columns = [
        *(Column("fine-tune", numeric=False), Column("domain", numeric=False)),
        *map(Column, ("facts asked", "half-width", "facts in all", "half-width with all")),
    ]
    taken = ", ".join(
        f"{sum(panel.taken.get((domain, s), 0) for domain in DOMAINS)} of stratum {s}"
        for s in range(N_STRATA)
    )
    text = (
        f"A panel of {len(panel.ids)} of the {panel.total} {split} facts was asked: {taken}. It "
        "is the same each time. Intervals are wider than with all facts; differences that a whole "
        "split would show may not show."
    )
    table = Table(
        "panel-widths",
        "Half the width of the 95% interval of accuracy (mean of the strata), in points",
        columns,
        rows,
        note="With all facts: as it would be if these had the accuracy that the panel shows.",
    )
    return [Paragraph(text, "callout"), Tabled(table)]


def _half_width(shares: Sequence[Share]) -> str:
    mean = mean_of_strata(shares)
    if mean.low is None or mean.high is None:
        return "-"
    return f"{50 * (mean.high - mean.low):.1f}"
