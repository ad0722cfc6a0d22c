"""`sftknow install-tasks` and `sftknow lm-eval`: our tasks in lm-eval's own command."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from argparse import Namespace

# lm-eval's options, --help among them, are lm-eval's to read.
PASS_THROUGH: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}


def install_tasks(
    remove: Annotated[bool, typer.Option("--remove", help="Take the tasks out again.")] = False,
) -> None:
    """Put the tasks into the installed lm-eval, so that plain 'lm_eval' finds them."""
    from sftknow_eval.evaluation import install

    if not remove:
        typer.echo(f"Installed in {install.install_tasks()}")
        typer.echo("Now: lm_eval --model hf --model_args pretrained=MODEL --tasks sftknow_cbqa")
        return
    folder, left = install.remove_tasks()
    if left:
        typer.echo(f"Removed from {folder}; left there, as it is not ours: {', '.join(left)}")
    else:
        typer.echo(f"Not in {folder} (any more)")


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's own command with our tasks; takes all of its options.

    For example: sftknow lm-eval --model hf --model_args pretrained=MODEL,base=BASE
    --tasks sftknow_cbqa --output_path results --log_samples
    """
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    # lm-eval's parser reads sys.argv, and shows its first word in messages.
    sys.argv = ["lm-eval", *context.args]
    harness = HarnessCLI()
    arguments = harness.parse_args()
    _add_tasks(arguments)
    _import_model(getattr(arguments, "model", None))
    _move_base(arguments)
    harness.execute(arguments)


def _import_model(name: str | None) -> None:
    """Import a model that lm-eval cannot import by itself."""
    if name == "vllm":
        from sftknow_eval.evaluation.engines import import_vllm_model

        import_vllm_model()
    elif name:
        from sftknow_eval.restoration.lm_eval_models import make_known

        make_known(name)


def _add_tasks(arguments: Namespace) -> None:
    """Add our task folder to the one that the user names, in the options or the config file."""
    from sftknow_eval.evaluation.install import tasks_path

    if not hasattr(arguments, "include_path"):
        return
    config = getattr(arguments, "config", None)
    named = arguments.include_path or (_config(config).get("include_path") if config else None)
    others = [named] if isinstance(named, str) else list(named or [])
    arguments.include_path = [*others, str(tasks_path())]


def _move_base(arguments: Namespace) -> None:
    """Turn `base` in the model arguments into metadata, where the model class knows no `base`.

    The tasks read it from either place; lm-eval's own models refuse names that they don't know.
    """
    model_args = getattr(arguments, "model_args", None)
    if not model_args or "base" not in model_args:
        return
    from lm_eval.api.registry import get_model

    model: Any = get_model(arguments.model or "hf")
    if "base" not in inspect.signature(model.__init__).parameters:
        base = model_args.pop("base")
        arguments.metadata = {"base": base, **(arguments.metadata or {})}


def _config(path: str) -> dict[str, Any]:
    from lm_eval.config.evaluate_config import EvaluatorConfig

    config: dict[str, Any] = EvaluatorConfig.load_yaml_config(path)
    return config
