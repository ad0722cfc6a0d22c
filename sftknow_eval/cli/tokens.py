"""`sftknow drift tokens`: how far next-token distributions have moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sftknow_eval.cli.pairs import shown_progress

_COLUMNS = ("facts", "mean", "median", "95%", "full, forth", "full, back")


def tokens(
    base: Annotated[str, typer.Argument(help="The base: local folder or hub id.")],
    finetuned: Annotated[
        str, typer.Argument(help="The fine-tune, or an adapter: local folder or hub id.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for token_drift.json and token_drift.parquet.")
    ] = None,
    mastery: Annotated[
        str | None, typer.Option(help="Mastery table of the base; else it is looked for.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Facts: folder or zip; else as recorded by the training.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, dev or train.")] = "test",
    relations: Annotated[
        str | None, typer.Option(help="Only these relations, such as P17,P19.")
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help="Prompt style of the fine-tune; else as recorded by the training."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most this many facts of each domain and stratum.")
    ] = None,
    backend: Annotated[str, typer.Option(help="hf or vllm.")] = "hf",
    batch_size: Annotated[int, typer.Option(help="Prompts in a batch of hf.")] = 256,
    model_args: Annotated[
        str, typer.Option(help="Arguments of the backend, as key=value,key=value.")
    ] = "",
    full: Annotated[
        bool, typer.Option(help="Measure over the whole vocabulary, too (hf only).")
    ] = True,
    base_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    finetuned_revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print token_drift.json.")] = False,
) -> None:
    """Compare the next token after the base's best template and after the fine-tune's question."""
    from lm_eval.utils import simple_parse_args_string

    from sftknow_eval.evaluation.prompts import check_style
    from sftknow_eval.evaluation.tokens.measure import token_drift
    from sftknow_eval.evaluation.tokens.request import TokenDriftRequest
    from sftknow_eval.mastery.backends import check_backend

    named = {"mastery": mastery, "data": data, "split": split, "relations": relations}
    request = TokenDriftRequest(
        base=base,
        finetuned=finetuned,
        base_revision=base_revision,
        finetuned_revision=finetuned_revision,
        metadata={name: value for name, value in named.items() if value is not None},
        style=check_style(style) if style else None,
        backend=check_backend(backend),
        engine_args=simple_parse_args_string(model_args),
        batch_size=batch_size,
        limit=limit,
        full=full,
    )
    with shown_progress(as_json) as progress:
        found = token_drift(request, out, progress)
    if as_json:
        typer.echo(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        _show(found, out)


def _show(found: Mapping[str, Any], out: Path | None) -> None:
    from sftknow_eval.cli.tables import simple_table

    console = Console(highlight=False)
    title = f"{found['finetuned']['model']}, drifted from {found['base']['model']}"
    table = simple_table(title, ["facts asked", *_COLUMNS])
    table.add_row("protocol", *_cells(found["overall"]))
    for entry in found["strata"]:
        if entry["all"]["kl_top10"]["n"]:
            name = f"{entry['domain'].upper()}, stratum {entry['stratum']}"
            table.add_row(name, *_cells(entry["answer_first"]))
    console.print(table)
    for relation in found["relations"]:
        numbers = found["relations"][relation]["kl_top10"]
        console.print(f"{relation}: mean {numbers['mean']:.3f} over {numbers['n']} facts")
    protocol, vocabulary = found["protocol"], found["vocabulary"]
    console.print(
        "Nats: KL(fine-tune || base) over the fine-tune's ten likeliest tokens; full: over the "
        "whole vocabulary, forth in the same direction, back in the other. Facts whose answer "
        "the base's completion begins with; protocol: those of stratum 4, ID, "
        f"{protocol['facts']} of {protocol['of_stratum_4_id']}.",
        soft_wrap=True,
    )
    if vocabulary["finetuned_left_out"]:
        console.print(
            f"{vocabulary['finetuned_left_out']} of the fine-tune's {vocabulary['finetuned']} "
            "tokens have no counterpart in the base and are left out of both distributions.",
            soft_wrap=True,
        )
    if out is not None:
        console.print(f"All numbers: {out / 'token_drift.json'}", soft_wrap=True)


def _cells(measures: Mapping[str, Any]) -> list[str]:
    top = measures["kl_top10"]
    both = [measures[f"kl_full_{way}"]["mean"] for way in ("finetuned_base", "base_finetuned")]
    values = [top["mean"], top["median"], top["p95"], *both]
    return [str(top["n"]), *("-" if value is None else f"{value:.3f}" for value in values)]
