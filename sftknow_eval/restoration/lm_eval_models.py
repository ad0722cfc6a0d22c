"""The lm-eval models of this package, by name, imported when they are asked for."""

from __future__ import annotations

import importlib

MODELS = {
    "sftknow-hf": "sftknow_eval.restoration.hf_model",
    "sftknow-vllm": "sftknow_eval.restoration.vllm_model",
}


def make_known(name: str) -> None:
    """Let lm-eval know a model of this package; any other name is lm-eval's own affair.

    The package declares them as entry points, too, which lm-eval reads from the release after
    0.4.13 on.
    """
    if name in MODELS:
        # lm-eval's registry fills itself only while it is empty.
        importlib.import_module("lm_eval.models")
        importlib.import_module(MODELS[name])
