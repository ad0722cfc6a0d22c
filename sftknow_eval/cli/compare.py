"""`sftknow compare`: evaluations side by side, fact by fact, with paired statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

    from sftknow_eval.evaluation.compare import Agreement
    from sftknow_eval.evaluation.results import Outcome
    from sftknow_eval.evaluation.statistics import Comparison
    from sftknow_eval.evaluation.statistics.intervals import Estimate
    from sftknow_eval.evaluation.statistics.paired import Cell

_DOMAINS = {"id": "in-domain", "ood": "out-of-domain"}
_SHOWN = 20
_COLUMNS = ("facts", "lost", "gained", "difference", "p", "Holm", "detectable")


def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders of two or more 'sftknow eval', on one set of facts."),
    ],
    reference: Annotated[
        int, typer.Option(help="Which folder the others are set against, from 1; 0 for none.")
    ] = 1,
    draws: Annotated[int, typer.Option(help="Draws of the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON, all facts.")] = False,
) -> None:
    """Compare evaluations fact by fact: with their base, and with the first of them.

    Says what each fine-tune lost and gained, how far its accuracy differs, with intervals that know
    that facts of one subject go together, and p-values adjusted for the number of tests. Of two
    folders, say of one model on two engines, also how far the verdicts agree.
    """
    from sftknow_eval.evaluation.compare import compare_facts
    from sftknow_eval.evaluation.facts_file import read_outcomes
    from sftknow_eval.evaluation.statistics import compare_runs

    names = _names(folders)
    _check(folders, reference)
    runs = dict(zip(names, (read_outcomes(f, "finetuned") for f in folders), strict=True))
    agreement = compare_facts(*runs.values()) if len(runs) == 2 else None
    base, why = _base(folders)
    if base is None and not reference:
        _refuse(f"Without a reference there is only the base to compare with, and {why}.")
    found = compare_runs(
        base,
        runs,
        reference=names[reference - 1] if reference else None,
        draws=draws,
        seed=seed,
    )
    if as_json:
        listed = _agreement_json(agreement) if agreement else {}
        typer.echo(json.dumps({**listed, "comparison": found.as_json()}, indent=2))
        return
    console = Console(highlight=False)
    if agreement:
        _show_agreement(console, agreement)
    _show(console, found)
    if base is None:
        console.print(f"Not compared with the base: {why}.", soft_wrap=True, markup=False)


def _refuse(message: str) -> None:
    from sftknow_eval.errors import SettingsError

    raise SettingsError(message)


def _check(folders: Sequence[Path], reference: int) -> None:
    if len(folders) < 2:
        _refuse("One folder is nothing to compare; name two or more.")
    if not 0 <= reference <= len(folders):
        _refuse(
            f"--reference is {reference}; it counts the folders, 1 to {len(folders)} (0 for none)."
        )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return short names that tell the folders apart."""
    last = [folder.resolve().name for folder in folders]
    short = len(set(last)) == len(last) and "base" not in last
    names = last if short else [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        _refuse("A folder is named twice.")
    return names


def _base(folders: Sequence[Path]) -> tuple[Sequence[Outcome] | None, str]:
    """Return the base that all folders hold; None, and why, where they hold none or several."""
    from sftknow_eval.errors import SettingsError
    from sftknow_eval.evaluation.facts_file import read_outcomes

    found = []
    for folder in folders:
        try:
            found.append(read_outcomes(folder, "base"))
        except SettingsError:
            return None, f"{folder} holds no answers of the base"
    verdicts = [{o.fact_id: o.recalled for o in outcomes} for outcomes in found]
    for folder, other in zip(folders, verdicts, strict=True):
        if other != verdicts[0]:
            return None, f"the base in {folder} gave other answers than the one in {folders[0]}"
    return found[0], ""


def _agreement_json(found: Agreement) -> dict[str, Any]:
    return {
        "agreeing": found.agreeing.as_json(),
        "same_output": found.same_output.as_json(),
        "differing": [
            {
                "fact_id": a.fact_id,
                "verdicts": [a.recalled, b.recalled],
                "outputs": [a.output, b.output],
            }
            for a, b in found.differing
        ],
    }


def _show_agreement(console: Console, found: Agreement) -> None:
    console.print(
        f"Verdicts agree on {found.agreeing.n_correct} of {found.agreeing.n} facts; outputs are "
        f"the same on {found.same_output.n_correct}."
    )
    for a, b in found.differing[:_SHOWN]:
        verdicts = " and ".join("right" if o.recalled else "wrong" for o in (a, b))
        console.print(f"  {a.fact_id}: {verdicts}: {[a.output, b.output]}", markup=False)
    if len(found.differing) > _SHOWN:
        console.print(f"  and {len(found.differing) - _SHOWN} more (--json lists all)")


def _show(console: Console, found: Comparison) -> None:
    tables = _by_stratum(found) if len(found.record["runs"]) == 2 else _by_run(found)
    for table in tables:
        # Fits a terminal of 80 columns.
        table.padding = (0, 1, 0, 0)
        console.print()
        console.print(table)
    console.print(
        "Differences of accuracy in points, with 95% intervals by subject or, for few facts, from "
        "Wilson's; 'mean' counts every stratum once. Lost is what the other knew and the run "
        "answers wrongly. p: McNemar's exact test, of the mean by sign flips of subjects; Holm: p "
        "adjusted over all runs against the same other. Detectable: a difference that the test "
        "finds four times in five. --json has the intervals by relation too, and every stratum.",
        soft_wrap=True,
    )


def _by_stratum(found: Comparison) -> Iterator[Table]:
    """Yield a table for each pair and domain."""
    from sftknow_eval.cli.tables import simple_table

    for pair in found.pairs:
        for domain, cells in pair.domains.items():
            title = f"{escape(pair.run)} against {escape(pair.against)}, {_DOMAINS[domain]}"
            table = simple_table(title, ("stratum", *_COLUMNS))
            for stratum, cell in enumerate(cells.strata):
                table.add_row(str(stratum), *_row(cell))
            table.add_section()
            table.add_row("all facts", *_row(cells.pooled))
            table.add_row("mean", *_row(cells.mean))
            yield table


def _by_run(found: Comparison) -> Iterator[Table]:
    """Yield a table of the mean of the strata for each other and domain."""
    from sftknow_eval.cli.tables import simple_table
    from sftknow_eval.mastery.facts import DOMAINS

    for against in dict.fromkeys(pair.against for pair in found.pairs):
        members = [pair for pair in found.pairs if pair.against == against]
        for domain in DOMAINS:
            title = f"Mean of strata against {escape(against)}, {_DOMAINS[domain]}"
            table = simple_table(title, ("run", *_COLUMNS))
            for pair in members:
                if domain in pair.domains:
                    table.add_row(escape(pair.run), *_row(pair.domains[domain].mean))
            if table.row_count:
                yield table


def _row(cell: Cell) -> list[str]:
    counts = [str(cell.counts.n), str(cell.counts.lost), str(cell.counts.gained)]
    least = "-" if cell.least_detectable is None else f"{100 * cell.least_detectable:.1f}"
    return [*counts, _points(cell.difference), _p(cell.p), _p(cell.p_holm), least]


def _points(found: Estimate) -> str:
    if found.value is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{100 * found.value:+.1f}"
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f}, {100 * found.high:+.1f})"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
