"""`sftknow facts`: what is read, kept and dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sftknow_eval.mastery.dataset import Dataset, RowCount

_DATA_HELP = (
    "Folder or zip with dataset/{train,dev,test}/P*.json; else SFTKNOW_DATA, else EntityQuestions."
)


def facts(
    data: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    relation_list: Annotated[
        Path | None, typer.Option("--relation-list", help="Relations (YAML), not the data's own.")
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="Aliases (JSON), not the data's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the rows read, kept and dropped, by relation and split."""
    from sftknow_eval.mastery.dataset import open_dataset

    dataset = open_dataset(data, relations=relation_list, aliases=aliases)
    counts = dataset.counts()
    if as_json:
        typer.echo(json.dumps(_as_json(dataset, counts), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{dataset.name}: {dataset.source}\n", markup=False)
    console.print(_by_relation(dataset, counts))
    console.print(_totals(counts))
    if unlisted := dataset.unlisted():
        console.print(f"Not in the relation list, not used: {', '.join(unlisted)}.")


def _as_json(dataset: Dataset, counts: list[RowCount]) -> dict[str, object]:
    return {
        "name": dataset.name,
        "source": dataset.source,
        "relations": [
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
        "studied": {f"{domain} {split}": n for (split, domain), n in _studied(counts).items()},
        "unlisted": dataset.unlisted(),
    }


def _studied(counts: list[RowCount]) -> dict[tuple[str, str], int]:
    wanted = (("train", "id"), ("dev", "id"), ("test", "id"), ("test", "ood"))
    return {
        key: sum(count.kept for count in counts if (count.split, count.domain) == key)
        for key in wanted
    }


def _reasons(counts: list[RowCount]) -> list[str]:
    return sorted({reason for count in counts for reason in count.dropped})


def _table(title: str, first: tuple[str, ...], reasons: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in first:
        table.add_column(name)
    for name in ("read", "kept", *reasons):
        table.add_column(name, justify="right")
    return table


def _by_relation(dataset: Dataset, counts: list[RowCount]) -> Table:
    reasons = _reasons(counts)
    table = _table("Rows by relation and split", ("relation", "split"), reasons)
    for relation in dataset.relations.values():
        rows = [count for count in counts if count.relation == relation.id]
        for place, count in enumerate(rows):
            name = f"{relation.id} {relation.label}" if place == 0 else ""
            numbers = (count.read, count.kept, *(count.dropped.get(r, 0) for r in reasons))
            table.add_row(name, count.split, *(f"{n:,}" for n in numbers))
    return table


def _totals(counts: list[RowCount]) -> Table:
    reasons = _reasons(counts)
    table = _table("All relations", ("domain", "split"), reasons)
    table.add_column("use")
    studied = _studied(counts)
    for domain in ("id", "ood"):
        for split in ("train", "dev", "test"):
            rows = [count for count in counts if (count.domain, count.split) == (domain, split)]
            numbers = (
                *(sum(count.read for count in rows), sum(count.kept for count in rows)),
                *(sum(count.dropped.get(r, 0) for count in rows) for r in reasons),
            )
            use = "studied" if (split, domain) in studied else "-"
            table.add_row(domain.upper(), split, *(f"{n:,}" for n in numbers), use)
    return table
