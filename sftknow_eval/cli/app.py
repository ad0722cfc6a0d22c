"""The Typer application and the one place where errors become exit codes.

The verbs' modules import torch, lm-eval and the like inside their functions only: showing
the help takes a fraction of a second.
"""

from __future__ import annotations

import gc
import os
import sys

import typer

from sftknow_eval import __version__
from sftknow_eval.errors import SftknowError

app = typer.Typer(
    name="sftknow",
    help="Measure what supervised fine-tuning does to the knowledge of a language model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sftknow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Measure what supervised fine-tuning does to the knowledge of a language model."""


def main() -> None:
    """Run the command; an error that a user can act on is printed and exits with code 2."""
    # BLAS threads that wait spin for 30 ms: a third of what NumPy and SciPy take to import.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    from sftknow_eval.cli import verbs

    verbs.register(app, sys.argv[1] if len(sys.argv) > 1 else None)
    try:
        app()
    except SftknowError as error:
        from rich.console import Console

        # Unwrapped, so that commands and paths in it can be copied.
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"Error: {error}", style="red", markup=False)
        sys.exit(2)
    finally:
        # At exit Python searches all that lives for cycles: without a model, time for nothing.
        if "torch" not in sys.modules:
            gc.freeze()
