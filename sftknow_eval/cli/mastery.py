"""`sftknow mastery`: look at a mastery table, push it to the hub, pull one from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from sftknow_eval.cli.tables import simple_table

_STRATA = range(5)


class _ShowByDefault(TyperGroup):
    """A group in which `mastery TABLE` stands for `mastery show TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        if args and args[0] not in known:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ShowByDefault,
    no_args_is_help=True,
    help="Show a mastery table: 'sftknow mastery TABLE'. Push or pull one with the hub.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def show(
    table: Annotated[Path, typer.Argument(help="mastery.parquet, or the folder of a probe.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Show counts per stratum, domain and split, per relation and per template."""
    from sftknow_eval.mastery.report import summarise
    from sftknow_eval.mastery.table import MasteryTable

    summary = summarise(MasteryTable.read(table))
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    _show_probe(console, summary)
    show_groups(console, summary)
    _show_relations(console, summary)
    _show_templates(console, summary)


@app.command()
def push(
    table: Annotated[Path, typer.Argument(help="mastery.parquet, or the folder of a probe.")],
    repo: Annotated[str, typer.Argument(help="Dataset on the hub, such as user/llama-3-mastery.")],
    private: Annotated[bool, typer.Option("--private", help="Make the dataset private.")] = False,
) -> None:
    """Share a table as a Hugging Face dataset, with a card that says how it was made."""
    from sftknow_eval.mastery.share import push as push_table

    commit = push_table(table, repo, private=private)
    typer.echo(f"Pushed to {repo} at {commit}")
    typer.echo(f"Others get it with: sftknow mastery pull {repo} --revision {commit}")


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(help="Dataset on the hub.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: the newest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table; default: in the cache.")
    ] = None,
) -> None:
    """Fetch a shared table and register it, so that tasks find it by its base."""
    from sftknow_eval.mastery.share import pull as pull_table

    shared = pull_table(repo, revision=revision, out=out)
    typer.echo(f"Pulled {shared.repo} at {shared.commit}")
    typer.echo(f"Stored as {shared.table}")


def show_groups(console: Console, summary: dict[str, Any]) -> None:
    """Print facts per stratum for each domain and split, as in the paper's Tables 1 and 8."""
    grid = simple_table("Facts per stratum", ("facts of", *map(str, _STRATA), "all", "mean R"))
    for group in summary["groups"]:
        grid.add_row(f"{group['domain'].upper()} {group['split']}", *_cells(group))
    console.print(grid)


def _cells(counts: dict[str, Any]) -> list[str]:
    return [
        *(f"{n:,}" for n in counts["strata"]),
        f"{counts['facts']:,}",
        f"{counts['mean_r']:.3f}",
    ]


def _show_probe(console: Console, summary: dict[str, Any]) -> None:
    probe = summary["probe"]
    n_samples = probe["n_templates"] * probe["samples_per_template"]
    lines = {
        "base": probe["base"] + (f" at {probe['revision']}" if probe["revision"] else ""),
        "weights": probe["fingerprint"],
        "facts": f"{summary['facts']:,} of {probe['data']}",
        "selection": _listing(probe["selection"]),
        "samples": f"{n_samples} a fact: {probe['n_templates']} templates x "
        f"{probe['samples_per_template']}, temperature {probe['temperature']}, at most "
        f"{probe['max_tokens']} new tokens, seed {probe['seed']}",
        "verdict": f"{probe['rule']}, answer-stop {'on' if probe['answer_stop'] else 'off'}",
        "engine": _listing(probe["engine"]),
    }
    for name, text in lines.items():
        console.print(f"{name:<10} {text}", markup=False, soft_wrap=True)
    console.print()


def _listing(values: dict[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            value = "; ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = ",".join(map(str, value))
        if value is not None:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _show_relations(console: Console, summary: dict[str, Any]) -> None:
    columns = ("relation", *map(str, _STRATA), "all", "mean R", "best template")
    grid = simple_table("By relation and stratum", columns)
    for row in summary["relations"]:
        first, second = row["best_templates"]
        best = f"{first['index']}"
        if first["how"] != "train":
            best = f"{first['index']}/{second['index']} ({first['how']})"
        grid.add_row(f"{row['relation']} ({row['domain']})", *_cells(row), best)
    console.print(grid)


def _show_templates(console: Console, summary: dict[str, Any]) -> None:
    """Print the success of each template, as many relations side by side as fit."""
    rows = summary["templates"]
    fitting = max(1, (console.width - len("template")) // len("  100.0"))
    for start in range(0, len(rows), fitting):
        block = rows[start : start + fitting]
        grid = simple_table(
            "Correct samples by template, in percent",
            ("template", *(row["relation"] for row in block)),
            left=0,
        )
        for index in range(summary["probe"]["n_templates"]):
            rates = [100 * row["n_correct"][index] / row["n_samples"] for row in block]
            grid.add_row(str(index), *(f"{rate:.1f}" for rate in rates))
        console.print(grid)
