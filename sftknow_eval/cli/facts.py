"""`sftknow facts`: what is read, kept and dropped, and which facts are probed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sftknow_eval.mastery.dataset import Dataset, RowCount

_DATA_HELP = (
    "Folder or zip with dataset/{train,dev,test}/P*.json; else SFTKNOW_DATA, else EntityQuestions."
)
_DOMAINS = ("id", "ood")
_SPLITS = ("train", "dev", "test")


def facts(
    data: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    relations_file: Annotated[
        Path | None, typer.Option(help="Relation list (YAML) in place of the data's own.")
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="Alias file (JSON) in place of the data's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the rows read, kept and dropped, by relation and split."""
    from sftknow_eval.mastery.dataset import open_dataset

    dataset = open_dataset(data, relations=relations_file, aliases=aliases)
    counts = dataset.counts()
    if as_json:
        typer.echo(json.dumps(_as_json(dataset, counts), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(f"{dataset.name}: {dataset.source}")
    for part, origin in dataset.origins.items():
        console.print(f"  {part}: {origin}")
    console.print()
    console.print(_by_relation(dataset, counts))
    console.print(_totals(counts))
    probed = _probed(counts)
    console.print(f"Probed: {sum(probed.values()):,} facts", style="bold")
    console.print("  " + " + ".join(f"{n:,} {name}" for name, n in probed.items()))
    if unlisted := dataset.unlisted():
        console.print(
            f"Not in the relation list and not used: {', '.join(unlisted)}.", style="yellow"
        )


def _as_json(dataset: Dataset, counts: list[RowCount]) -> dict[str, object]:
    return {
        "name": dataset.name,
        "source": dataset.source,
        **dataset.origins,
        "rows": [
            {
                "relation": count.relation,
                "label": dataset.relations[count.relation].label,
                "domain": count.domain,
                "split": count.split,
                "read": count.read,
                "kept": count.kept,
                "dropped": count.dropped,
            }
            for count in counts
        ],
        "probed": _probed(counts),
        "unlisted": dataset.unlisted(),
    }


def _probed(counts: list[RowCount]) -> dict[str, int]:
    return {
        f"{domain.upper()} {split}": sum(count.kept for count in _of(counts, domain, split))
        for domain, split in (("id", "train"), ("id", "dev"), ("id", "test"), ("ood", "test"))
    }


def _of(counts: Iterable[RowCount], domain: str, split: str) -> list[RowCount]:
    return [count for count in counts if (count.domain, count.split) == (domain, split)]


def _reasons(counts: list[RowCount]) -> list[str]:
    return sorted({reason for count in counts for reason in count.dropped})


def _numbers(counts: Sequence[RowCount], reasons: list[str]) -> list[str]:
    sums = [sum(count.read for count in counts), sum(count.kept for count in counts)]
    sums += [sum(count.dropped.get(reason, 0) for count in counts) for reason in reasons]
    return [f"{number:,}" for number in sums]


def _table(title: str, first: tuple[str, ...], reasons: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(first):
        table.add_column(name, no_wrap=place > 0)
    for name in ("read", "kept", *reasons):
        # Broken by hand: left to itself, the table breaks the relations' names first.
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    return table


def _by_relation(dataset: Dataset, counts: list[RowCount]) -> Table:
    from rich.text import Text

    reasons = _reasons(counts)
    table = _table("Rows by relation and split", ("relation", "", "split"), reasons)
    for relation in dataset.relations.values():
        rows = [count for count in counts if count.relation == relation.id]
        for place, count in enumerate(rows):
            name = f"{relation.id} {relation.label}" if place == 0 else ""
            domain = relation.domain.upper() if place == 0 else ""
            table.add_row(Text(name), domain, count.split, *_numbers([count], reasons))
    return table


def _totals(counts: list[RowCount]) -> Table:
    reasons = _reasons(counts)
    table = _table("All relations", ("domain", "split"), reasons)
    table.add_column("probed", justify="right", no_wrap=True)
    probed = _probed(counts)
    for domain in _DOMAINS:
        for split in _SPLITS:
            facts = probed.get(f"{domain.upper()} {split}")
            table.add_row(
                *(domain.upper(), split, *_numbers(_of(counts, domain, split), reasons)),
                "-" if facts is None else f"{facts:,}",
                style="dim" if facts is None else None,
            )
    table.add_section()
    table.add_row("all", "", *_numbers(counts, reasons), f"{sum(probed.values()):,}")
    return table
