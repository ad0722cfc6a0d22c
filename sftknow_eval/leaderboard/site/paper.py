"""The figures that the paper reports, as rows that are marked as such.

Source: Ye et al., EMNLP 2025: accuracy after SFT, restoration (Table 4) and strategies (Table 7),
as data in `sftknow_eval/data/paper_tables.json`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.palette import DASHES, SERIES, SHAPES
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table

STATUS = "reported, not recomputed"
_TABLES = Path(__file__).parents[2] / "data" / "paper_tables.json"
_STRATA = range(5)


@dataclass(frozen=True, slots=True)
class Reported:
    """One row of the paper's tables, in percent.

    Attributes:
        table: what it is part of.
        id_strata, ood_strata: by stratum; empty where the paper gives the mean only.
        id_sd, ood_sd: the spread that the paper prints beside the mean.
    """

    table: str
    base: str
    row: str
    id: float
    ood: float
    id_sd: float | None = None
    ood_sd: float | None = None
    id_strata: tuple[float, ...] = ()
    ood_strata: tuple[float, ...] = ()


def reported(tables: Mapping[str, Any]) -> Iterator[Reported]:
    """Yield every row of the paper that a board could hold."""
    for name, found in tables["strategies_LLaMA-3-8B"].items():
        yield Reported("strategies", "LLaMA-3-8B", name, found["id"], found["ood"])
    for base, strata in tables["accuracy_sft_1920"].items():
        for name, by_domain in strata.items():
            inside, outside = by_domain["id"], by_domain["ood"]
            yield Reported(
                "sft-1920",
                base,
                f"SFT on 1,920 facts of stratum {name.rsplit('-', 1)[-1]}",
                *(inside["mean"], outside["mean"], inside["mean_sd"], outside["mean_sd"]),
                *(tuple(inside["by_stratum"]), tuple(outside["by_stratum"])),
            )


def read_tables() -> dict[str, Any]:
    """Return the paper's tables."""
    found: dict[str, Any] = read_json(_TABLES)
    return found


def paper_tables(tables: Mapping[str, Any]) -> list[Table]:
    """Return the paper's rows as tables for the page."""
    rows = list(reported(tables))
    made = [_strategies([row for row in rows if row.table == "strategies"])]
    bases = dict.fromkeys(row.base for row in rows if row.table == "sft-1920")
    made += [
        _sft(base, [r for r in rows if r.table == "sft-1920" and r.base == base]) for base in bases
    ]
    return made


def paper_csv(tables: Mapping[str, Any]) -> str:
    """Return the paper's rows as CSV."""
    strata = [f"{domain}_{i}" for domain in ("id", "ood") for i in _STRATA]
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["status", "table", "base", "row", "id", "id_sd", "ood", "ood_sd", *strata])
    for row in reported(tables):
        by_stratum = [*(row.id_strata or [""] * 5), *(row.ood_strata or [""] * 5)]
        spread = ["" if sd is None else sd for sd in (row.id_sd, row.ood_sd)]
        means = [row.id, spread[0], row.ood, spread[1]]
        writer.writerow([STATUS, row.table, row.base, row.row, *means, *by_stratum])
    return target.getvalue()


def paper_curve(tables: Mapping[str, Any]) -> Figure:
    """Return the paper's restoration curves for 1,920 facts."""
    table = tables["restoration_LLaMA-3-8B"]
    names = sorted(table["id"]["1920"])
    labels = [f"trained on stratum {name.rsplit('-', 1)[-1]}" for name in names]
    values = [
        {"restored": share, "value": value, "series": label, "domain": words}
        for domain, words in (("id", "in-domain (ID)"), ("ood", "out-of-domain (OOD)"))
        for name, label in zip(names, labels, strict=True)
        for share, value in zip(table["restored_percent"], table[domain]["1920"][name], strict=True)
    ]
    legend = {"orient": "bottom", "columns": 2}
    series = {"field": "series", "type": "nominal", "title": None, "legend": legend}
    encoding = {
        "x": {"field": "restored", "type": "quantitative", "title": "weights restored, percent"},
        "y": {"field": "value", "type": "quantitative", "title": "mean of strata, percent right"},
        "color": {**series, "scale": {"domain": labels, "range": list(SERIES[:5])}},
    }
    dash = {**series, "scale": {"domain": labels, "range": list(DASHES[:5])}}
    shape = {**series, "scale": {"domain": labels, "range": list(SHAPES[:5])}}
    spec = {
        "data": {"values": values},
        "facet": {"column": {"field": "domain", "type": "nominal", "title": None}},
        "spec": {
            **{"width": 236, "height": 230, "encoding": encoding},
            "layer": [
                {"mark": "line", "encoding": {"strokeDash": dash}},
                {"mark": "point", "encoding": {"shape": shape}},
            ],
        },
    }
    return Figure(
        "paper-restoration",
        "Restoration in the paper (LLaMA-3-8B, 1,920 facts): reported, not recomputed",
        "Lines of the mean of strata over the share of weights restored, one for each stratum that "
        "was trained on. All fall to almost nothing at 60 percent.",
        spec,
        "Source: Table 4 of the paper.",
        broad=True,
    )


def _strategies(rows: list[Reported]) -> Table:
    cells = [
        [Cell(row.row), _number(row.id), _number(row.ood), Cell(STATUS, tone="muted")]
        for row in rows
    ]
    heads = [Column("Row", False), Column("ID"), Column("OOD"), Column("Status", False)]
    caption = "Strategies side by side, LLaMA-3-8B, 1,920 facts (percent): reported, not recomputed"
    return Table("paper-strategies", caption, heads, cells, note="Source: Table 7 of the paper.")


def _sft(base: str, rows: list[Reported]) -> Table:
    heads = [Column("Row", False), *(Column(str(i)) for i in _STRATA), Column("mean")]
    heads += [*(Column(str(i)) for i in _STRATA), Column("mean")]
    cells = [
        [
            Cell(row.row),
            *map(_number, row.id_strata),
            _number(row.id, row.id_sd),
            *map(_number, row.ood_strata),
            _number(row.ood, row.ood_sd),
        ]
        for row in rows
    ]
    return Table(
        f"paper-sft-{base.lower()}",
        f"SFT on one stratum, {base} (percent, spread over runs): reported, not recomputed",
        heads,
        cells,
        groups=[("", 1), ("In-domain, by stratum", 6), ("Out-of-domain, by stratum", 6)],
        note="Source: the paper's accuracies after SFT on 1,920 facts.",
    )


def _number(value: float | None, sd: float | None = None) -> Cell:
    if value is None:
        return Cell(MISSING)
    return Cell(f"{value:.2f}", "" if sd is None else f"± {sd:.2f}", sort=value)
