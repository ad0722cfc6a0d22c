"""`sftknow train`: a fine-tuned model from a base and facts of one stratum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from sftknow_eval.errors import SettingsError


def train(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Base model: a folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the fine-tuned model.")],
    mastery: Annotated[
        str | None,
        typer.Option(help="Mastery table of the base; else it is looked for by the base."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Facts: folder or zip; else EntityQuestions.")
    ] = None,
    stratum: Annotated[str, typer.Option(help="Stratum to train on: 0 to 4, or 'all'.")] = "2",
    n: Annotated[str, typer.Option("--n", help="Number of facts, or 'all'.")] = "240",
    seed: Annotated[
        int, typer.Option("--seed", "--draw", help="Draws the facts and orders the batches.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 1e-5,
    epochs: Annotated[float, typer.Option(help="Passes over the facts.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Facts in a batch.")] = 8,
    lr_scheduler: Annotated[
        str, typer.Option(help="cosine, linear, constant or constant_with_warmup.")
    ] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 0.0,
    warmup: Annotated[
        float, typer.Option(help="Steps of linear warm-up; below 1, their share.")
    ] = 0.0,
    max_grad_norm: Annotated[float, typer.Option(help="Clip gradients at this norm.")] = 1.0,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after this many steps, whatever --epochs says.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the weights in training.")
    ] = "float32",
    autocast: Annotated[
        bool, typer.Option("--autocast", help="Compute in bfloat16, weights as in --dtype.")
    ] = False,
    save_dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Of the saved weights; else that of --dtype."),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Revision of a base on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fine-tune BASE on facts of one stratum of its mastery table, as in the paper.

    All weights are trained, with the loss on the answer only; defaults are the paper's.
    """
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.find import find_mastery
    from sftknow_eval.training.finetune import FinetuneRequest, finetune
    from sftknow_eval.training.sft import TrainSettings, require_trl

    require_trl()
    request = FinetuneRequest(
        base=base,
        out=out,
        revision=revision,
        stratum=_number_or_all("--stratum", stratum),
        n=_number_or_all("--n", n),
        seed=seed,
        settings=TrainSettings(
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            lr_scheduler=lr_scheduler,
            weight_decay=weight_decay,
            warmup=warmup,
            max_grad_norm=max_grad_norm,
            max_steps=max_steps,
            dtype=dtype,
            autocast=autocast,
            save_dtype=save_dtype,
            gradient_checkpointing=gradient_checkpointing,
        ),
    )
    table = find_mastery(explicit=mastery, base=base)
    dataset = open_dataset(data)
    with _Progress() as progress:
        done = finetune(request, dataset, table, on_step=progress.step)
    if as_json:
        typer.echo(json.dumps(done.record.model_dump(mode="json"), indent=2, sort_keys=True))
    else:
        _show(done)


def _number_or_all(option: str, text: str) -> int | Literal["all"]:
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

        console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
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


def _show(done: Any) -> None:
    record = done.record
    console = Console(highlight=False)
    if done.reused:
        console.print(
            f"{done.folder} holds this fine-tune already (same settings): nothing to do.",
            markup=False,
        )
        return
    first, last = record.losses[0][1], record.losses[-1][1]
    where = "all strata" if record.stratum == "all" else f"stratum {record.stratum}"
    console.print(
        f"Trained on {record.n} facts of {where} in {record.steps} steps: loss {first:.3f} to "
        f"{last:.3f}. The model ({record.saved_dtype}) and its record are in {done.folder}",
        markup=False,
        soft_wrap=True,
    )
