"""`sftknow eval`: a fine-tune beside its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sftknow_eval.evaluation.evaluate import Evaluation

_DOMAINS = {"id": "In-domain", "ood": "Out-of-domain"}
_HEADS = {"base": "base", "finetuned": "fine-tune"}


def evaluate(
    finetuned: Annotated[str, typer.Argument(help="Fine-tuned model: a folder or a hub id.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json and facts.parquet; else eval-NAME."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Its base; else as the training record or the mastery table says."),
    ] = None,
    mastery: Annotated[
        str | None, typer.Option(help="Mastery table of the base; else it is looked for.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Facts: folder or zip; else EntityQuestions.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, dev or train.")] = "test",
    facts: Annotated[
        str | None, typer.Option(help="File of fact ids, instead of a whole split.")
    ] = None,
    relations: Annotated[
        str | None, typer.Option(help="Only these relations, such as P17,P19.")
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="Completion templates, if not the data's own.")
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="paper, plain, chat or completion; else as recorded.")
    ] = None,
    num_fewshot: Annotated[int, typer.Option(help="Shots before each question.")] = 0,
    backend: Annotated[
        str | None,
        typer.Option(help="vllm or hf; default: vllm where it is installed and a GPU is there."),
    ] = None,
    model_args: Annotated[
        str, typer.Option(help="More arguments of lm-eval's model, as key=value,key=value.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="At most this many facts in each stratum.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Facts in a batch.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Evaluate a fine-tuned model: which facts did it keep, lose and gain?

    Runs lm-eval on the tasks sftknow_cbqa for the fine-tune and for its base, and shows both by
    stratum of the base's mastery.
    """
    from lm_eval.utils import simple_parse_args_string

    from sftknow_eval.evaluation.evaluate import EvaluationRequest
    from sftknow_eval.evaluation.evaluate import evaluate as run
    from sftknow_eval.evaluation.prompts import check_style
    from sftknow_eval.mastery.backends import check_backend, default_backend

    chosen = {
        **{"mastery": mastery, "data": data, "split": split, "facts": facts},
        **{"relations": relations, "templates": templates},
    }
    request = EvaluationRequest(
        finetuned=finetuned,
        base=base,
        metadata={name: value for name, value in chosen.items() if value is not None},
        style=check_style(style) if style else None,
        backend=check_backend(backend) if backend else default_backend()[0],
        engine_args=simple_parse_args_string(model_args),
        batch_size=batch_size,
        num_fewshot=num_fewshot,
        limit=limit,
    )
    out = out or Path(f"eval-{Path(finetuned).resolve().name}")
    done = run(request, out)
    if as_json:
        typer.echo(json.dumps(done.summary, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        _show(Console(highlight=False), done, out)


def _show(console: Console, done: Evaluation, out: Path) -> None:
    tuned, task = done.summary["finetuned"], done.summary["task"]
    console.print(
        f"{tuned['model']}, {task['split']} facts of {task['data']}; strata by the mastery of "
        f"{task['mastery_base']}",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"  fine-tune: prompt style '{tuned['style']}' ({tuned['style_from']}), "
        f"{tuned['num_fewshot']}-shot, {tuned['backend']}",
        markup=False,
        soft_wrap=True,
    )
    if done.base:
        origin = done.summary["base"]["base_from"]
        console.print(
            f"  base: {done.base.record['model']} ({origin}), completing its best templates",
            markup=False,
        )
    else:
        console.print(f"  no base beside it: {done.summary['base_missing']}", markup=False)
    if task["facts_not_probed"]:
        console.print(f"  left out, as not in the mastery table: {task['facts_not_probed']} facts")
    for domain in _DOMAINS:
        _show_domain(console, done, domain)
    console.print(
        "Percent of facts whose answer contains an alias, with 95% intervals; 'mean' is that of "
        "the strata, counts are sums.",
        soft_wrap=True,
    )
    console.print(
        f"Per fact: {out / 'facts.parquet'}; all numbers: {out / 'results.json'}", soft_wrap=True
    )


def _show_domain(console: Console, done: Evaluation, domain: str) -> None:
    scores = {
        name: found[domain]["alias_acc"]
        for name, found in done.summary["scores"].items()
        if found is not None
    }
    models = [name for name in ("base", "finetuned") if name in scores]
    changed = done.summary["transitions"] and done.summary["transitions"][domain]
    table = Table(title=_DOMAINS[domain], title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    table.add_column("stratum", no_wrap=True)
    heads = ["facts", *(_HEADS[name] for name in models)]
    for head in [*heads, *(["kept", "lost", "gained", "neither"] if changed else [])]:
        table.add_column(head, justify="right", no_wrap=True)
    strata = scores["finetuned"]["strata"]
    for index, entry in enumerate(strata):
        cells = [_percent(scores[name]["strata"][index]) for name in models]
        counts = _counts(changed and changed["strata"][index])
        table.add_row(str(index), str(entry["n"]), *cells, *counts)
    used = scores["finetuned"]["strata_in_mean"]
    label = "mean" if len(used) == len(strata) else f"mean of {','.join(map(str, used)) or '-'}"
    table.add_section()
    cells = [_percent(scores[name]["mean"]) for name in models]
    total = str(sum(entry["n"] for entry in strata))
    table.add_row(label, total, *cells, *_counts(changed and changed["all"]))
    console.print(table)
    if changed:
        lost, gained = changed["all"]["lost_of_known"], changed["all"]["gained_of_unknown"]
        console.print(
            f"  Lost {lost['n_correct']} of the {lost['n']} facts that the base knew: "
            f"{_percent(lost)}. Gained {gained['n_correct']} of the {gained['n']} that it did not: "
            f"{_percent(gained)}.\n",
            soft_wrap=True,
        )


def _percent(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    low, value, high = (100 * entry[name] for name in ("low", "value", "high"))
    return f"{value:.1f} ({low:.0f}-{high:.0f})"


def _counts(entry: dict[str, Any] | None) -> list[str]:
    if not entry:
        return []
    return [str(entry[name]) for name in ("kept", "lost", "gained", "unknown")]
