"""`sftknow probe`: what the base model knows."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sftknow_eval.errors import SettingsError

if TYPE_CHECKING:
    from sftknow_eval.mastery.job import ProbeJob
    from sftknow_eval.mastery.probe import ProbeProgress

_LINE_SECONDS = 10.0
_ENGINE = "Engine (names of lm-eval)"

# Options may also be spelled with underscores, as lm-eval does.
CONTEXT = {"token_normalize_func": lambda name: name.replace("_", "-")}


def probe(
    model: Annotated[str, typer.Argument(help="Base model: a folder or a Hugging Face hub id.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for settings, shards and the mastery table.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Facts: a folder or zip (else SFTKNOW_DATA, else EntityQuestions)."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Completion templates in place of the data's own (YAML).")
    ] = None,
    split: Annotated[str, typer.Option(help="Splits, comma-separated.")] = "train,dev,test",
    relations: Annotated[
        str | None, typer.Option(help="Relations, comma-separated, such as P17,P19; default all.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="This many facts in all, spread evenly over splits and relations."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples, and of the choice by --limit.")] = 0,
    backend: Annotated[
        str | None,
        typer.Option(help="vllm or hf; default: vllm where it is installed and a GPU is there."),
    ] = None,
    n_samples: Annotated[int, typer.Option(help="Samples per template.")] = 10,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="New tokens per completion at most.")] = 32,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Count and estimate only; samples a little, writes nothing."
        ),
    ] = False,
    keep_completions: Annotated[
        bool, typer.Option("--keep-completions", help="Store every text under OUT/completions.")
    ] = False,
    answer_stop: Annotated[
        bool | None,
        typer.Option(
            "--answer-stop/--no-answer-stop",
            help="End a completion at the answer; same counts. Default: where it saves time.",
        ),
    ] = None,
    chunk_facts: Annotated[int, typer.Option(help="Facts per shard, the unit of a restart.")] = 256,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit.", rich_help_panel=_ENGINE)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32, bfloat16, ...", rich_help_panel=_ENGINE)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of the hf backend: cpu, cuda:0.", rich_help_panel=_ENGINE)
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Of the hf backend; default auto.", rich_help_panel=_ENGINE)
    ] = None,
    tensor_parallel_size: Annotated[
        int | None, typer.Option(help="GPUs of one vLLM engine.", rich_help_panel=_ENGINE)
    ] = None,
    data_parallel_size: Annotated[
        int | None, typer.Option(help="vLLM engines side by side.", rich_help_panel=_ENGINE)
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest sequence, for vLLM.", rich_help_panel=_ENGINE)
    ] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Share, for vLLM.", rich_help_panel=_ENGINE)
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Let the hub's model code run.", rich_help_panel=_ENGINE
        ),
    ] = False,
    model_args: Annotated[
        str, typer.Option(help="Any other, as key=value,key=value.", rich_help_panel=_ENGINE)
    ] = "",
) -> None:
    """Sample completions of every fact's templates and count those that hold the answer.

    The result, OUT/mastery.parquet, places each fact in one of five strata. A probe that was
    stopped goes on when the same command is given again.
    """
    if out is None and not dry_run:
        raise SettingsError("Give the folder for the result with --out DIR (or --dry-run).")
    from sftknow_eval.mastery.job import prepare_probe

    named = {
        "dtype": dtype,
        "device": device,
        "batch_size": batch_size,
        "tensor_parallel_size": tensor_parallel_size,
        "data_parallel_size": data_parallel_size,
        "max_model_len": max_model_len,
        "gpu_memory_utilization": gpu_memory_utilization,
        "trust_remote_code": trust_remote_code or None,
        "revision": revision,
    }
    engine_args = _engine_args(model, model_args, named)
    job = prepare_probe(
        model,
        data=data,
        templates=templates,
        backend=backend,
        revision=engine_args.pop("revision", None),
        splits=tuple(_listed(split)),  # type: ignore[arg-type]  # checked by the settings
        relations=tuple(_listed(relations)) if relations is not None else None,
        answer_stop=answer_stop,
        keep_completions=keep_completions,
        engine_args=engine_args,
        limit=limit,
        seed=seed,
        n_samples=n_samples,
        temperature=temperature,
        max_tokens=max_new_tokens,
        chunk_facts=chunk_facts,
    )
    console = Console(highlight=False)
    _show_job(console, job)
    if dry_run or out is None:
        _show_estimate(console, job)
    else:
        _run(console, job, out)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _engine_args(model: str, model_args: str, named: dict[str, Any]) -> dict[str, Any]:
    """Merge `--model-args` (read as lm-eval reads them) and the options of their own."""
    from lm_eval.utils import simple_parse_args_string

    args: dict[str, Any] = simple_parse_args_string(model_args)
    if str(args.pop("pretrained", model)) != model:
        raise SettingsError(f"--model-args names another model (pretrained) than '{model}'.")
    for name, value in named.items():
        if value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name} is {value}; a number was expected.")
        if name in args and args[name] != value:
            raise SettingsError(
                f"{name} is given twice: {value} by its option, {args[name]} in --model-args."
            )
        args[name] = value
    return args


def _show_job(console: Console, job: ProbeJob) -> None:
    settings = job.settings
    console.print(
        f"Probing {settings.base} with {job.templates.count} templates x {settings.n_samples} "
        f"samples, temperature {settings.temperature}, at most {settings.max_tokens} new tokens.",
        markup=False,
    )
    stop = "on" if settings.answer_stop else "off"
    console.print(f"Backend: {job.backend} ({job.backend_reason}); answer-stop {stop}.")


def _show_estimate(console: Console, job: ProbeJob) -> None:
    from sftknow_eval.mastery.estimate import estimate

    found = estimate(job)
    exact = found.prompts_counted == found.prompts
    how = "counted" if exact else f"scaled up from {found.prompts_counted:,} prompts"
    console.print(f"facts               {found.facts:,}")
    console.print(f"prompts             {found.prompts:,}")
    console.print(f"completions         {found.completions:,}")
    console.print(f"prompt tokens       {found.prompt_tokens:,} ({how})")
    console.print(f"new tokens at most  {found.most_new_tokens:,}")
    console.print(
        f"hours               {found.hours:.2f} (an estimate, from {found.prompts_measured:,} "
        f"prompts sampled in {found.seconds_measured:.1f} s; a full engine is faster)"
    )
    console.print("Nothing was written.")


def _run(console: Console, job: ProbeJob, out: Path) -> None:
    from sftknow_eval.cli.mastery import show_groups
    from sftknow_eval.mastery.report import summarise
    from sftknow_eval.mastery.table import MasteryTable

    with _Display(console) as display:
        outcome = job.run(out, on_start=display.starting, on_progress=display.update)
    if outcome.facts_new == 0:
        console.print(f"Already finished: {outcome.table} ({outcome.facts:,} facts).", markup=False)
    else:
        earlier = outcome.facts - outcome.facts_new
        console.print(
            f"Wrote {outcome.table}: {outcome.facts:,} facts"
            + (f", {earlier:,} of them from an earlier run." if earlier else "."),
            markup=False,
        )
    show_groups(console, summarise(MasteryTable.read(outcome.table)))


class _Display:
    """A progress bar on a terminal, a line from time to time elsewhere."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console = console
        self._said = 0.0
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("reading facts and shards", total=None)

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def starting(self) -> None:
        self._bar.update(self._task, description="starting the engine")
        if not self._console.is_terminal:
            self._console.print("Starting the engine.")

    def update(self, progress: ProbeProgress) -> None:
        state = _state(progress)
        self._bar.update(
            self._task, total=progress.facts, completed=progress.facts_done, description=state
        )
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said >= _LINE_SECONDS:
            self._said = now
            self._console.print(state)


def _state(progress: ProbeProgress) -> str:
    rate = progress.prompts_new / max(progress.seconds, 1e-9)
    left = int((progress.prompts_left - progress.prompts_new) / rate)
    return (
        f"{progress.facts_done:,}/{progress.facts:,} facts, "
        f"{rate / progress.prompts_per_fact:.1f} facts/s, {rate:.0f} prompts/s, "
        f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    )
