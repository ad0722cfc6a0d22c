"""`sftknow sweep`: every ratio of restored weights, evaluated in one live engine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sftknow_eval.cli.pairs import split_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RATIOS = "0,1,3,5,10,20,40,60"
_REGION = "Which weights go back"


def sweep(
    base: Annotated[str, typer.Argument(help="The base: local folder or hub id.")],
    finetuned: Annotated[
        str, typer.Argument(help="The fine-tune, or an adapter: local folder or hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results, table and curve.")],
    ratios: Annotated[str, typer.Option(help="Percent of the region's weights.")] = _RATIOS,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-eval, comma-separated: ours and any others.")
    ] = "sftknow_cbqa",
    backend: Annotated[str, typer.Option(help="hf or vllm.")] = "hf",
    mastery: Annotated[
        str | None, typer.Option(help="Mastery table of the base; else it is looked for.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Facts: folder or zip; else as recorded by the training.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="test, dev or train; several, as in dev,test, share each swap.")
    ] = "test",
    relations: Annotated[
        str | None, typer.Option(help="Only these relations, such as P17,P19.")
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help="Prompt style of our tasks; else as recorded by the training, or plain."),
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Shots; else each task's own.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most this many documents of each task (or stratum).")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with task files of your own.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Documents in a batch.")] = None,
    model_args: Annotated[
        str, typer.Option(help="More arguments of lm-eval's model, as key=value,key=value.")
    ] = "",
    region: Annotated[
        str,
        typer.Option(
            help="transformer, attention, mlp, embedding or all.", rich_help_panel=_REGION
        ),
    ] = "transformer",
    layers: Annotated[
        str | None, typer.Option(help="Only these layers, such as 0-3.", rich_help_panel=_REGION)
    ] = None,
    order: Annotated[
        str, typer.Option(help="top, bottom or random.", rich_help_panel=_REGION)
    ] = "top",
    seed: Annotated[int, typer.Option(help="Of the order random.", rich_help_panel=_REGION)] = 0,
    arithmetic: Annotated[
        str, typer.Option(help="float32 or bfloat16.", rich_help_panel=_REGION)
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print sweep.json.")] = False,
) -> None:
    """Give back more and more weights to the base, and evaluate each step.

    One engine is started; its weights are swapped in place. A sweep that was stopped goes on
    when the same command is given again.
    """
    from lm_eval.utils import simple_parse_args_string

    from sftknow_eval.evaluation.prompts import check_style
    from sftknow_eval.mastery.backends import check_backend
    from sftknow_eval.sweep.request import FactSet, SweepRequest
    from sftknow_eval.sweep.run import sweep as run
    from sftknow_eval.sweep.run import sweep_sets

    named = {"mastery": mastery, "data": data, "relations": relations}
    named |= {"style": check_style(style) if style else None}
    request = SweepRequest(
        base=base,
        finetuned=finetuned,
        ratios=split_numbers("--ratios", ratios),
        tasks=[task.strip() for task in tasks.split(",") if task.strip()],
        metadata={name: value for name, value in named.items() if value is not None},
        restoration={
            **{"region": region, "layers": layers, "order": order, "order_seed": seed},
            **{"arithmetic": arithmetic},
        },
        backend=check_backend(backend),
        engine_args=simple_parse_args_string(model_args),
        batch_size=batch_size,
        num_fewshot=num_fewshot,
        limit=limit,
        include_path=include_path,
    )
    console = Console(highlight=False, stderr=as_json)
    splits = list(dict.fromkeys(name.strip() for name in split.split(",") if name.strip()))

    def say(line: str) -> None:
        console.print(line, markup=False)

    if len(splits) == 1:
        metadata = {**request.metadata, "split": splits[0]}
        summary = run(dataclasses.replace(request, metadata=metadata), out, say)
        shown = {out: summary}
    else:
        sets = {name: FactSet({"split": name}) for name in splits}
        found = sweep_sets(request, sets, out, say)
        summary = {"splits": found}
        shown = {out / name: each for name, each in found.items()}
    if as_json:
        typer.echo(json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False))
        return
    for folder, each in shown.items():
        _show(console, each, folder)
    _show_choice(console, out, shown.values())


def _show(console: Console, summary: Mapping[str, Any], out: Path) -> None:
    from sftknow_eval.cli.tables import simple_table
    from sftknow_eval.sweep.points import series

    points = summary["points"]
    names = list(dict.fromkeys(name for p in points if p["same_as"] is None for name in series(p)))
    columns = ["restored", "of changed weights", *names]
    split = f", {summary['task']['split']} facts" if summary["task"] else ""
    title = f"{summary['finetuned']}, restored towards {summary['base']}{split}"
    table = simple_table(title, columns)
    for point in points:
        cells = [f"{point['ratio']:g}%", f"{point['of_changed']:.1f}%"]
        if point["same_as"] is None:
            found = series(point)
            cells += [_percent(found[name]) if name in found else "-" for name in names]
        else:
            cells += [f"as {point['same_as']:g}%"] * len(names)
        table.add_row(*cells)
    console.print(table)
    console.print("Percent, with 95% intervals; of the facts, the mean of the strata.")
    console.print(f"Curve: {out / 'curve.svg'}; all numbers: {out / 'sweep.json'}", soft_wrap=True)


def _show_choice(console: Console, out: Path, sweeps: Iterable[Mapping[str, Any]]) -> None:
    """Say which ratio the dev facts choose; the test facts never choose one."""
    from sftknow_eval.artifacts import read_json
    from sftknow_eval.sweep.choose import CHOICE_NAME

    if not any((each["task"] or {}).get("split") == "dev" for each in sweeps):
        if any(each["task"] for each in sweeps):
            console.print(
                "No ratio is chosen: that takes dev facts (--split dev,test).", soft_wrap=True
            )
        return
    choice = read_json(out / CHOICE_NAME)
    scores = [
        f"{name or choice['split']} {100 * score:.1f}%"
        for name, score in choice["scores"].items()
        if score is not None
    ]
    console.print(
        f"Chosen ratio: {choice['ratio']:g}% ({choice['why']}). ID mean of strata there: "
        f"{', '.join(scores)}.",
        soft_wrap=True,
    )


def _percent(entry: tuple[float, float | None, float | None]) -> str:
    value, low, high = entry
    if low is None or high is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} ({100 * low:.0f}-{100 * high:.0f})"
