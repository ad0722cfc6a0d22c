"""A vLLM engine from lm-eval's argument names: checked first, sensible on the CPU.

Everything that can be refused is refused before the engine starts, as a start takes a while.
Failures of the start itself become a ModelError with the cause that vLLM gave, which for an
engine in processes of its own stands only in their log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import logging
import os
import re
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sftknow_eval import vllm_support
from sftknow_eval.errors import DataError, ModelError, SettingsError
from sftknow_eval.models import locate_model

logger = logging.getLogger(__name__)

_MARK = "SFTKNOW_ENGINE"
_CPU_BLOCK = 32
_CPU_CACHE_BYTES = 1 << 30
_CPU_SEQUENCES = 256
_CPU_LONGEST = 1024
_CAUSE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception|Exit)): (.+)$")


def check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse engine arguments that vLLM does not know, naming the nearest that it does.

    Raises:
        SettingsError: unknown names (all are listed), or one that is not an engine's affair.
        MissingDependency: vLLM is not installed.
    """
    vllm_support.import_vllm("The vLLM backend")
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)} - {"model"}
    faults = []
    for name in sorted(arguments.keys() - known):
        near = difflib.get_close_matches(name, sorted(known), 3, 0.5)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        faults.append(f"'{name}'{hint}")
    if faults:
        raise SettingsError(
            f"vLLM {vllm_support.installed_version()} does not know the engine argument "
            f"{', '.join(faults)}."
        )
    if int(arguments.get("data_parallel_size", 1)) > 1:
        raise SettingsError(
            "data_parallel_size above 1 needs one engine a process: use the Ray sampler, "
            "which 'sftknow probe --data-parallel-size' does."
        )


def cpu_defaults(folder: Path, arguments: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    """Return what to add to the user's arguments for an engine on the CPU.

    Args:
        folder: of the model; its config says the stored dtype and how many positions it has.
        arguments: given by the user; these are left alone.
        max_tokens: the most new tokens of a completion.
    """
    config = _read_config(folder)
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    longest = max(_CPU_LONGEST, max_tokens + _CPU_LONGEST // 2)
    if isinstance(positions, int):
        longest = min(positions, longest)
    defaults: dict[str, Any] = {
        "enforce_eager": True,
        "block_size": _CPU_BLOCK,
        "max_model_len": longest,
        "max_num_seqs": _CPU_SEQUENCES,
        "use_tqdm_on_load": False,
    }
    if config.get("dtype", config.get("torch_dtype")) == "float32":
        defaults["dtype"] = "float32"  # vLLM's "auto" would round it to 16 bits
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE") and "gpu_memory_utilization" not in arguments:
        defaults["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    length, sequences = (
        int(arguments.get(name) or defaults[name]) for name in ("max_model_len", "max_num_seqs")
    )
    # A seeded prompt that is prefilled in two parts ends a CPU engine of vLLM 0.32 ("CPU
    # Generator does not use offset"): with this budget no prompt is ever split.
    defaults["max_num_batched_tokens"] = length * sequences
    return {name: value for name, value in defaults.items() if name not in arguments}


class ProcessGuard:
    """Sees to it that no process of an engine outlives this one, even when it is killed.

    vLLM 0.32 leaves its engine and workers running, and a GPU's memory taken, when the process
    that started them is killed. Processes started within `marking` carry a mark in their
    environment; a shell waits for the end of this process, or of the guard, and ends them.
    """

    _SCRIPT = (
        'read -r _; for file in $(grep -lsF "$0" /proc/[0-9]*/environ); do '
        'process="${file#/proc/}"; kill -9 "${process%/environ}"; done'
    )

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._shell = subprocess.Popen(
            ["sh", "-c", self._SCRIPT, f"{_MARK}={self._mark}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal is not for it
        )

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Mark the processes that are started within the block."""
        os.environ[_MARK] = self._mark
        try:
            yield
        finally:
            del os.environ[_MARK]

    def close(self) -> None:
        """End whatever is left of the marked processes."""
        self._shell.communicate()


def start_engine(
    model: str, arguments: dict[str, Any], *, revision: str | None, max_tokens: int
) -> tuple[Any, ProcessGuard]:
    """Start a `vllm.LLM`; return it and the guard of its processes, for `close_engine`.

    Args:
        model: local folder or hub id.
        arguments: engine arguments by lm-eval's names (those of vLLM's EngineArgs).
        revision: branch, tag or commit of a hub id.
        max_tokens: the most new tokens of a completion.

    Raises:
        ModelError: the model is unknown or incomplete, or the engine did not start.
        SettingsError: see `check_arguments`.
        MissingDependency: vLLM is not installed.
    """
    check_arguments(arguments)
    from vllm import LLM
    from vllm.platforms import current_platform

    folder = locate_model(model, revision)
    on_cpu = bool(current_platform.is_cpu())
    added = cpu_defaults(folder, arguments, max_tokens) if on_cpu else {}
    logger.info("Starting vLLM with %s", added | arguments)
    guard = ProcessGuard()
    with guard.marking(), _engine_log() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about vLLM's own code
        try:
            with vllm_support.keeping_set_num_threads():
                return LLM(str(folder), **added, **arguments), guard
        except BaseException as error:
            _clean_up()
            guard.close()
            if not isinstance(error, Exception):
                raise
            cause = " ".join((_logged_cause(log) or _own_cause(error)).split())
            raise ModelError(
                f"vLLM could not start an engine for '{model}'. {cause} {_remedy(cause)}"
            ) from error


def close_engine(llm: Any, guard: ProcessGuard) -> None:
    """Stop an engine and its processes, and free its memory."""
    try:
        llm.llm_engine.engine_core.shutdown()
        _clean_up()
    finally:
        guard.close()


def _clean_up() -> None:
    """Undo what an engine leaves in this process, so that another one can start."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def _read_config(folder: Path) -> dict[str, Any]:
    from sftknow_eval.artifacts import read_json

    try:
        config = read_json(folder / "config.json")
    except DataError as error:
        raise ModelError(f"The model's configuration cannot be read: {error}") from error
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else dict(config)


@contextlib.contextmanager
def _engine_log() -> Iterator[Path]:
    """Let the engine's processes write their errors into a file as well, and yield it."""
    name = "VLLM_LOGGING_CONFIG_PATH"
    with tempfile.TemporaryDirectory(prefix="sftknow-vllm-") as folder:
        log = Path(folder, "errors.log")
        log.touch()
        if os.environ.get(name):
            yield log
            return
        config = Path(folder, "logging.json")
        config.write_text(json.dumps(_logging_config(log)))
        os.environ[name] = str(config)
        try:
            yield log
        finally:
            del os.environ[name]


def _logging_config(log: Path) -> dict[str, Any]:
    level = os.environ["VLLM_LOGGING_LEVEL"].upper()
    plain = {"formatter": "plain"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
        "handlers": {
            "stream": plain
            | {"class": "logging.StreamHandler", "stream": os.environ["VLLM_LOGGING_STREAM"]},
            "file": plain
            | {"class": "logging.FileHandler", "filename": str(log), "level": "ERROR"},
        },
        "loggers": {"vllm": {"handlers": ["stream", "file"], "level": level, "propagate": False}},
    }


def _logged_cause(log: Path) -> str | None:
    """Return the first exception that the engine's processes logged: the later ones follow."""
    for line in log.read_text(errors="replace").splitlines():
        if found := _CAUSE.search(line):
            return f"{found[1].rpartition('.')[2]}: {found[2]}"
    return None


def _own_cause(error: Exception) -> str:
    """Return what an exception says, without the addresses and inputs that pydantic adds."""
    if isinstance(error, ValidationError):
        faults = ["'{}': {}".format(".".join(map(str, f["loc"])), f["msg"]) for f in error.errors()]
        return f"{'; '.join(faults)}."
    return f"{type(error).__name__}: {error}"


def _remedy(cause: str) -> str:
    text = cause.lower()
    if "memory" in text or "kv cache" in text:
        return (
            "Lower gpu_memory_utilization, max_model_len or max_num_seqs, spread the model with "
            "tensor_parallel_size, or free memory (on the CPU: VLLM_CPU_KVCACHE_SPACE, in GiB)."
        )
    if "tokenizer" in text or "sentencepiece" in text:
        return "Save the tokenizer beside the weights, or name another with tokenizer=FOLDER."
    if "trust_remote_code" in text or "trust-remote-code" in text:
        return "If you trust the model's own code, give trust_remote_code=True."
    return "Check the model's files and the engine arguments; --backend hf needs no vLLM."
