"""`sftknow report` and `sftknow gate`: a fine-tune examined, and a limit on what it may lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sftknow_eval.errors import SettingsError

if TYPE_CHECKING:
    from sftknow_eval.report.asked import Asked
    from sftknow_eval.report.gate import GateResult

Mastery = Annotated[
    str | None, typer.Option(help="Mastery table of the base; else it is looked for.")
]
Data = Annotated[str | None, typer.Option(help="Facts: folder or zip; else as recorded.")]
SplitName = Annotated[str, typer.Option(help="test, dev or train.")]
Quick = Annotated[
    int | None, typer.Option(help="Ask a panel of this many facts, spread over the strata.")
]
Style = Annotated[str | None, typer.Option(help="paper, plain or chat; else as recorded.")]
BackendName = Annotated[
    str | None, typer.Option(help="vllm or hf; default: vllm where it is installed on a GPU.")
]
ModelArgs = Annotated[
    str, typer.Option(help="More arguments of lm-eval's model, as key=value,key=value.")
]
BatchSize = Annotated[str | None, typer.Option(help="Facts in a batch.")]


def report(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[BASE] FINETUNED...",
            help="The base (or 'auto'), then fine-tunes or LoRA adapters of it: folders or hub "
            "ids. A single one is a fine-tune whose base is the one that it states.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("report"),
    mastery: Mastery = None,
    data: Data = None,
    split: SplitName = "test",
    quick: Quick = None,
    style: Style = None,
    backend: BackendName = None,
    model_args: ModelArgs = "",
    batch_size: BatchSize = None,
    ratios: Annotated[
        str, typer.Option(help="Percent of the weights to give back, for the curve.")
    ] = "0,1,3,5,10,20,40,60",
    without: Annotated[
        str, typer.Option(help="Parts to leave out: tokens, weights, restoration.")
    ] = "",
) -> None:
    """Examine fine-tunes: what they kept, lost and gained, what moved, what restoring buys.

    Writes index.html (one page that needs nothing else), report.json and report.md. A report that
    was stopped goes on when the same command is given again.
    """
    from sftknow_eval.cli.pairs import split_numbers
    from sftknow_eval.report.card import CardRequest, report_card

    base, finetuned = _base_and_finetuned(models)
    console = Console(highlight=False)
    request = CardRequest(
        asked=_asked(base, mastery, data, split, quick, style, backend, model_args, batch_size),
        finetuned=tuple(finetuned),
        ratios=tuple(split_numbers("--ratios", ratios)),
        without=frozenset(name.strip() for name in without.split(",") if name.strip()),
    )
    done = report_card(request, out, lambda line: console.print(line, markup=False))
    for sentence in done.sentences:
        console.print(sentence, markup=False)
    console.print(f"Report: {done.page}", markup=False, soft_wrap=True)


def gate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="[BASE] FINETUNED", help="The base (or 'auto'), and the fine-tune."),
    ],
    max_lost: Annotated[
        str, typer.Option("--max-lost", help="Share of the known facts that may be lost: 2%.")
    ],
    stratum: Annotated[
        str | None, typer.Option(help="Only facts of these strata of mastery, such as 4 or 3,4.")
    ] = None,
    ci: Annotated[
        bool, typer.Option("--ci", help="Plain lines without colour; annotations on GitHub.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to keep the answers in; else none are kept.")
    ] = None,
    mastery: Mastery = None,
    data: Data = None,
    split: SplitName = "test",
    quick: Quick = None,
    style: Style = None,
    backend: BackendName = None,
    model_args: ModelArgs = "",
    batch_size: BatchSize = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fail (exit code 1) when a fine-tune lost more of what its base knows than is allowed.

    It fails only when the lower end of the 95% interval lies above what is allowed. Exit code 0
    otherwise, and 2 when something could not be done.
    """
    import tempfile

    from sftknow_eval.report.asked import share_of
    from sftknow_eval.report.gate import gate as run

    base, finetuned = _base_and_finetuned(models)
    if len(finetuned) != 1:
        raise SettingsError(f"The gate takes one fine-tune; {len(finetuned)} are given.")
    allowed, strata = share_of(max_lost, "--max-lost"), _strata(stratum)
    asked = _asked(base, mastery, data, split, quick, style, backend, model_args, batch_size)
    with tempfile.TemporaryDirectory(prefix="sftknow-gate-") as scratch:
        found = run(asked, finetuned[0], allowed, out or Path(scratch), strata)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, sort_keys=True))
    else:
        _show(found, ci)
    raise typer.Exit(found.exit_code)


def _base_and_finetuned(models: list[str]) -> tuple[str | None, list[str]]:
    if len(models) == 1:
        return None, models
    return (None if models[0] == "auto" else models[0]), models[1:]


def _strata(text: str | None) -> tuple[int, ...]:
    names = [] if text is None else [part.strip() for part in text.split(",")]
    if wrong := [name for name in names if name not in tuple("01234")]:
        raise SettingsError(f"--stratum {wrong[0]!r}: the strata of mastery are 0 to 4.")
    return tuple(sorted({int(name) for name in names}))


def _asked(
    base: str | None,
    mastery: str | None,
    data: str | None,
    split: str,
    quick: int | None,
    style: str | None,
    backend: str | None,
    model_args: str,
    batch_size: str | None,
) -> Asked:
    from lm_eval.utils import simple_parse_args_string

    from sftknow_eval.evaluation.prompts import check_style
    from sftknow_eval.evaluation.settings import SPLITS
    from sftknow_eval.mastery.backends import check_backend, default_backend
    from sftknow_eval.report.asked import Asked

    known: dict[str, Any] = {name: name for name in SPLITS}
    if split not in known:
        raise SettingsError(f"--split {split!r}: known are {', '.join(SPLITS)}.")
    return Asked(
        base=base,
        mastery=mastery,
        data=data,
        split=known[split],
        quick=quick,
        style=check_style(style) if style else None,
        backend=check_backend(backend) if backend else default_backend()[0],
        engine_args=simple_parse_args_string(model_args),
        batch_size=batch_size,
    )


def _show(found: GateResult, ci: bool) -> None:
    import os

    lines = [
        *found.sentences(),
        f"Base: {found.base.name} ({found.base.origin}; {found.base.check}).",
    ]
    if not ci:
        colour = {"failed": "red", "passed": "green"}.get(found.verdict, "yellow")
        console = Console(highlight=False)
        console.print(f"Gate {found.verdict}.", style=colour)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        return
    typer.echo(f"gate: {found.verdict}")
    for line in lines:
        typer.echo(line)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        level = {"failed": "error", "passed": "notice"}.get(found.verdict, "warning")
        text = lines[0].replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        typer.echo(f"::{level} title=sftknow gate: {found.verdict}::{text}")
