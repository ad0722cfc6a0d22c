"""The list of verbs, in the order in which the help shows them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import typer

# Where each verb lies: a module of this room, and its function, or its own list of commands.
VERBS = {
    "facts": ("facts", "facts"),
    "demo": ("demo", "demo"),
    "probe": ("probe", "probe"),
    "mastery": ("mastery", "app"),
    "world": ("world", "world"),
    "train": ("train", "train"),
    "eval": ("evaluate", "evaluate"),
    "compare": ("compare", "compare"),
    "lm-eval": ("tasks", "lm_eval"),
    "install-tasks": ("tasks", "install_tasks"),
    "restore": ("restore", "restore"),
    "interpolate": ("interpolate", "interpolate"),
    "sweep": ("sweep", "sweep"),
    "drift": ("drift", "app"),
    "report": ("report", "report"),
    "gate": ("report", "gate"),
    "study": ("study", "study"),
    "board": ("board", "app"),
}


def register(app: typer.Typer, asked: str | None = None) -> None:
    """Add every verb to `app`; of a known verb asked for that one alone, which starts sooner."""
    for verb in [asked] if asked in VERBS else VERBS:
        place, name = VERBS[verb]
        module = importlib.import_module(f"sftknow_eval.cli.{place}")
        found = getattr(module, name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=verb)
        else:
            app.command(verb, **_settings(verb, module))(found)


def _settings(verb: str, module: ModuleType) -> dict[str, Any]:
    if verb == "probe":
        return {"context_settings": module.CONTEXT}
    return dict(module.PASS_THROUGH) if verb == "lm-eval" else {}
