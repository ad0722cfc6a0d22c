"""`sftknow train`: a fine-tuned model from a base, by a strategy, on facts or on any rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from sftknow_eval.errors import SettingsError
from sftknow_eval.models import is_adapter

if TYPE_CHECKING:
    from sftknow_eval.training.run import Finetuned, TrainRequest
    from sftknow_eval.training.strategy import Strategy

_OPTIMISATION = "Optimisation (the strategy's where not given; the defaults are the paper's)"
_Dtype = Literal["float32", "bfloat16"]


def _setting(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=_OPTIMISATION, show_default=False)


def train(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Base model: a folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the fine-tuned model.")],
    strategy: Annotated[
        str, typer.Option(help="Name of a strategy, or the path of one's own YAML file.")
    ] = "sft_divided",
    mastery: Annotated[
        str | None,
        typer.Option(help="Mastery table of the base; else it is looked for by the base."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Facts: folder or zip; else EntityQuestions.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Train on these rows instead of facts: JSONL of prompt and target."),
    ] = None,
    stratum: Annotated[
        str | None, typer.Option(help="Stratum to train on: 0 to 4, or 'all'; else the strategy's.")
    ] = None,
    n: Annotated[
        str | None, typer.Option("--n", help="Number of facts, or 'all'; else the strategy's.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", "--draw", help="Draws the facts and orders the batches.")
    ] = 0,
    learning_rate: Annotated[float | None, _setting("Peak learning rate of AdamW.")] = None,
    epochs: Annotated[float | None, _setting("Passes over the facts.")] = None,
    batch_size: Annotated[int | None, _setting("Facts in a step.")] = None,
    lr_scheduler: Annotated[
        str | None, _setting("cosine, linear, constant or constant_with_warmup.")
    ] = None,
    weight_decay: Annotated[float | None, _setting("Weight decay of AdamW.")] = None,
    warmup: Annotated[
        float | None, _setting("Steps of linear warm-up; below 1, their share.")
    ] = None,
    max_grad_norm: Annotated[float | None, _setting("Clip gradients at this norm.")] = None,
    max_steps: Annotated[
        int | None, _setting("Stop after this many steps, whatever --epochs says.")
    ] = None,
    dtype: Annotated[_Dtype | None, _setting("Of the weights in training.")] = None,
    autocast: Annotated[
        bool | None, _setting("Compute in bfloat16, weights as in --dtype.", "--autocast")
    ] = None,
    save_dtype: Annotated[
        _Dtype | None, _setting("Of the saved weights; else that of --dtype.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, _setting("Less memory, more time.", "--gradient-checkpointing")
    ] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(help="Steps between checkpoints, from which a stopped run goes on.")
    ] = 100,
    revision: Annotated[str | None, typer.Option(help="Revision of a base on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fine-tune BASE by a strategy: as in the paper, or in one of the ways beside it.

    The facts are drawn by their mastery; --prompts trains on any other task. A run that was
    stopped goes on when the same command is given again.
    """
    from sftknow_eval.training.run import TrainRequest
    from sftknow_eval.training.sft import require_trl
    from sftknow_eval.training.strategy import load_strategy

    require_trl()
    given = {
        **{"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size},
        **{"lr_scheduler": lr_scheduler, "weight_decay": weight_decay, "warmup": warmup},
        **{"max_grad_norm": max_grad_norm, "max_steps": max_steps, "dtype": dtype},
        **{"autocast": autocast, "save_dtype": save_dtype},
        "gradient_checkpointing": gradient_checkpointing,
    }
    request = TrainRequest(
        base=base,
        out=out,
        revision=revision,
        stratum=_number_or_all("--stratum", stratum),
        n=_number_or_all("--n", n),
        seed=seed,
        training={name: value for name, value in given.items() if value is not None},
        prompts=prompts,
        checkpoint_steps=checkpoint_steps,
    )
    _show(_run(load_strategy(strategy), request, mastery, data), as_json)


def _run(
    strategy: Strategy, request: TrainRequest, mastery: str | None, data: str | None
) -> Finetuned:
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.find import find_mastery
    from sftknow_eval.training.run import train_strategy

    facts = request.prompts is None and strategy.is_trained
    if request.prompts is not None and (mastery or data):
        raise SettingsError("--prompts trains on rows of its own: leave out --mastery and --data.")
    table = find_mastery(explicit=mastery, base=request.base) if facts else None
    dataset = open_dataset(data) if facts else None
    with _Progress() as progress:
        return train_strategy(strategy, request, dataset, table, on_step=progress.step)


def _number_or_all(option: str, text: str | None) -> int | Literal["all"] | None:
    if text is None:
        return None
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{option} is '{text}', neither a number nor 'all'.") from None


class _Progress:
    """A bar on stderr that appears with the first step; nothing without a terminal."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        from sftknow_eval.training.processes import Processes

        console = Console(stderr=True)
        shown = console.is_terminal and Processes.of_environment().is_first
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )
        self._task = self._bar.add_task("loading the base", total=None, loss="")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def step(self, done: int, total: int, loss: float) -> None:
        """Move the bar to step `done` of `total`."""
        self._bar.update(
            self._task,
            description="training",
            completed=done,
            total=total,
            loss=f"loss {loss:.3f}",
        )


def _show(done: Finetuned, as_json: bool) -> None:
    from sftknow_eval.training.processes import Processes

    if not Processes.of_environment().is_first:
        return
    record = done.record
    if as_json:
        typer.echo(json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True))
        return
    console = Console(highlight=False)
    if done.reused:
        console.print(
            f"{done.folder} holds this fine-tune already (same settings): nothing to do.",
            markup=False,
        )
        return
    first, last = record.losses[0][1], record.losses[-1][1]
    made = "adapter" if is_adapter(done.folder) else "model"
    console.print(
        f"Trained on {_trained_on(record)} in {record.steps} steps: loss {first:.3f} to "
        f"{last:.3f}. The {made} ({record.saved_dtype}) and its record are in {done.folder}",
        markup=False,
        soft_wrap=True,
    )
    if record.resumed_at:
        steps = ", ".join(map(str, record.resumed_at))
        console.print(f"It was taken up again after step {steps}.")


def _trained_on(record: Any) -> str:
    if record.stratum is None:
        return f"{record.n} rows of {record.data}"
    where = "all strata" if record.stratum == "all" else f"stratum {record.stratum}"
    if len(record.drawn) < 2:
        return f"{record.n} facts of {where}"
    parts = [f"{count} {part}" for part, count in record.drawn.items() if part != "stratum"]
    return f"{record.drawn['stratum']} facts of {where} and {', '.join(parts)}"
