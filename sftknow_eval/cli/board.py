"""`sftknow board`: submit rows to a leaderboard, verify them, run them again, withdraw them."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftknow_eval.cli import board_site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sftknow_eval.leaderboard.verify import Verdict

app = typer.Typer(
    help="The leaderboard: submit, verify, reproduce, build, publish.", no_args_is_help=True
)

Root = Annotated[Path, typer.Option(help="The leaderboard's folder.")]


class Format(StrEnum):
    """How verdicts are printed."""

    rich = "rich"
    json = "json"
    github = "github"


class Answer(StrEnum):
    """Whether test facts were trained on."""

    no = "no"
    yes = "yes"
    unknown = "unknown"


class Track(StrEnum):
    """Who can make the model again."""

    strategy = "strategy"
    checkpoint = "checkpoint"


@app.command()
def submit(
    results: Annotated[
        list[Path],
        typer.Argument(help="A study's folder, or the 'sftknow eval' folders of one row's seeds."),
    ],
    root: Root = Path("leaderboard"),
    contact: Annotated[
        str | None, typer.Option(help="Mail address, https:// address or @handle.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the submitted files, such as CC-BY-4.0.")
    ] = None,
    training_data: Annotated[
        str | None, typer.Option(help="What the model was trained on, in a sentence.")
    ] = None,
    test_facts: Annotated[
        Answer, typer.Option(help="Were facts of the test trained on?")
    ] = Answer.no,
    training_file: Annotated[
        Path | None,
        typer.Option(help="Training data as JSON lines; else the ids of the train facts."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the row.")] = None,
    summary: Annotated[str, typer.Option(help="A few sentences about it.")] = "",
    gpu_hours: Annotated[float | None, typer.Option(help="GPU-hours of each seed.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="A known strategy or a YAML file; else as recorded.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Name of the row; else its data regime.")] = None,
    track: Annotated[
        Track | None, typer.Option(help="checkpoint: nobody is to train it again.")
    ] = None,
    base_id: Annotated[str | None, typer.Option(help="The base's folder below mastery/.")] = None,
    base_name: Annotated[str | None, typer.Option(help="What the base is called.")] = None,
    mastery: Annotated[
        Path | None, typer.Option(help="Mastery table; else it is looked for.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The facts; else as recorded.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Pass over rows that are there.")] = False,
    evidence: Annotated[
        bool, typer.Option(help="Without evidence a row is shown and never ranked.")
    ] = True,
) -> None:
    """Make submissions from results, verified; asks for what only you can say."""
    from rich.console import Console

    from sftknow_eval.leaderboard.intake import Naming
    from sftknow_eval.leaderboard.intake import submit as make
    from sftknow_eval.leaderboard.submit import Declaration

    declaration = Declaration(
        contact=_asked(contact, "--contact", "Contact (mail, https:// address or @handle)"),
        licence=_asked(licence, "--licence", "Licence of the submitted files (such as CC-BY-4.0)"),
        training_data=_asked(training_data, "--training-data", "Training data, in a sentence"),
        test_facts=test_facts.value,
        title=title,
        summary=summary,
        training_file=training_file,
        gpu_hours=gpu_hours,
        evidence=evidence,
    )
    naming = Naming(
        strategy=strategy,
        run=run,
        base_id=base_id,
        base_name=base_name,
        mastery=mastery,
        data=data,
        track=track.value if track else None,
        existing="keep" if keep else "refuse",
    )
    console = Console(highlight=False)
    folders = make(results, root, declaration, naming, _printer(console))
    rows = "1 row" if len(folders) == 1 else f"{len(folders)} rows"
    console.print(f"{rows} below {root / 'submissions'}, verified.", markup=False, soft_wrap=True)
    console.print(f"Look at them with: sftknow board build --root {root} --out site", markup=False)


def _printer(console: Console) -> Any:
    return lambda line: console.print(f"  {line}", markup=False, soft_wrap=True)


def _asked(value: str | None, option: str, question: str) -> str:
    from sftknow_eval.errors import SettingsError

    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise SettingsError(f"{option} is missing: {question}.")
    answer: str = typer.prompt(question)
    return answer


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="A leaderboard's folder (else leaderboard/), or rows of it."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="How verdicts are printed.")
    ] = Format.rich,
) -> None:
    """Recompute every number from the evidence; exit code 1 if a row is refused.

    Nothing that was submitted is loaded as a model or run.
    """
    from sftknow_eval.leaderboard.announce import as_json, github_lines
    from sftknow_eval.leaderboard.verify import verify as check

    verdicts = check(paths or [Path("leaderboard")])
    if form is Format.json:
        typer.echo(json.dumps(as_json(verdicts), indent=2, ensure_ascii=True))
    elif form is Format.github:
        for line in github_lines(verdicts):
            typer.echo(line)
    else:
        _show(verdicts)
    if any(verdict.reasons for verdict in verdicts):
        raise typer.Exit(1)


def _show(verdicts: Sequence[Verdict]) -> None:
    from rich.console import Console

    from sftknow_eval.leaderboard.announce import shown

    console = Console(highlight=False)
    styles = {"refused": "red", "recomputed": "green", "self_reported": "yellow"}
    for verdict in verdicts:
        console.print(
            f"{shown(verdict.path)}: {verdict.status}",
            style=styles[verdict.status],
            markup=False,
            soft_wrap=True,
        )
        for reason in verdict.reasons:
            console.print(f"  - {shown(reason)}", markup=False, soft_wrap=True)
        for flag in verdict.flags:
            console.print(f"  flag: {shown(flag.text)}", markup=False, soft_wrap=True)
    refused = sum(bool(verdict.reasons) for verdict in verdicts)
    console.print(f"{len(verdicts)} verified, {refused} refused.")


@app.command()
def reproduce(
    row: Annotated[str, typer.Argument(help="version/base/strategy/run.")],
    base: Annotated[str, typer.Option(help="The base: local folder or hub id.")],
    by: Annotated[str, typer.Option(help="The maintainer who runs it.")],
    out: Annotated[Path, typer.Option(help="Folder for models and evaluations.")],
    root: Root = Path("leaderboard"),
    data: Annotated[Path | None, typer.Option(help="The facts; else EntityQuestions.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run the config without asking.")] = False,
) -> None:
    """Run a row's config again and record whether it gives the same (for maintainers).

    Exit code 1 if it does not agree.
    """
    from rich.console import Console

    from sftknow_eval.leaderboard.reproduce import Rerun, row_to_run
    from sftknow_eval.leaderboard.reproduce import reproduce as again

    manifest, _ = row_to_run(root, row)
    assert manifest.config is not None
    console = Console(highlight=False)
    console.print("This config was submitted and is about to be run:")
    console.print_json(json.dumps(manifest.config.model_dump(mode="json"), ensure_ascii=True))
    seeds = ", ".join(str(run.seed) for run in manifest.seeds)
    console.print(f"On {manifest.regime.label}, with the seeds {seeds}.", markup=False)
    if not yes:
        typer.confirm("Run it?", abort=True)
    rerun = Rerun(root=root, row=row, base=base, data=data, out=out, by=by)
    record, differing = again(rerun, _printer(console))
    for line in differing:
        console.print(f"  differs: {line}", markup=False, style="red")
    verdict = "does not agree" if differing else "agrees: reproduced"
    console.print(
        f"{row} {verdict}; {record.same_outputs} of {len(record.seeds)} seeds gave the same "
        "outputs, fact by fact.",
        markup=False,
    )
    if differing:
        raise typer.Exit(1)


@app.command()
def withdraw(
    row: Annotated[str, typer.Argument(help="version/base/strategy/run.")],
    reason: Annotated[str, typer.Option(help="Why; it is public.")],
    by: Annotated[str, typer.Option(help="Who withdraws it.")],
    root: Root = Path("leaderboard"),
) -> None:
    """Withdraw a row: it keeps its files, loses its rank, and stands in the public log."""
    import datetime

    from sftknow_eval.leaderboard.withdrawn import PAGE_NAME
    from sftknow_eval.leaderboard.withdrawn import withdraw as enter

    enter(root, row, reason, by, datetime.date.today())
    typer.echo(f"{row} is withdrawn; see {root / PAGE_NAME}.")


@app.command()
def workflow(
    out: Annotated[Path, typer.Option(help="The submission repository's top folder.")] = Path(),
) -> None:
    """Install the GitHub Actions workflows of a submission repository."""
    from sftknow_eval.leaderboard.workflows import install

    for path in install(out):
        typer.echo(f"Wrote {path}")


app.command("build")(board_site.build)
app.command("serve")(board_site.serve)
app.command("publish")(board_site.publish)
