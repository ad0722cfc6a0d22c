"""Loading a causal language model of transformers for inference, with errors that say why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import DataError, ModelError, SettingsError

# More rows than this were no faster: on a CPU their cache no longer fits into the processor's.
_MOST_ROWS = {"cpu": 1280, "cuda": 8192}
# Models below this size run a batch on each core; larger ones share the cores for each batch.
_SMALL_BYTES = 1 << 28
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    check_config(folder, name)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"The model '{name}' has no tokenizer that can be read in {folder}: "
            f"{_one_line(error)}. Save one beside the weights (tokenizer.save_pretrained)."
        ) from error


def load_model(folder: Path, name: str, dtype: str, trust_remote_code: bool) -> Any:
    """Load a causal language model for inference.

    Raises:
        ModelError: the weights are missing, damaged, incomplete or of an unknown kind.
        SettingsError: no such dtype.
    """
    from transformers import AutoModelForCausalLM

    check_config(folder, name)
    if dtype not in DTYPES:
        raise SettingsError(f"Unknown dtype '{dtype}'. Known are {', '.join(DTYPES)}.")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except Exception as error:
        raise ModelError(
            f"The model '{name}' cannot be loaded from {folder}: {_one_line(error)}. Expected "
            "is a causal language model of transformers, config and complete weights."
        ) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"The weights of '{name}' in {folder} are incomplete: {len(missing)} tensors are "
            f"missing, such as {missing[0]}. Fetch or save the model again."
        )
    return model.eval()


def check_config(folder: Path, name: str) -> None:
    """Refuse a model whose config.json is not JSON.

    Raises:
        ModelError: it cannot be read.
    """
    path = folder / "config.json"
    try:
        if path.is_file():
            read_json(path)
    except DataError as error:
        raise ModelError(
            f"The model '{name}' cannot be read: {_one_line(error)}. Fetch or save it again."
        ) from error


def check_device(device: str | None) -> torch.device:
    """Return the device that is asked for, else the GPU when there is one.

    Raises:
        SettingsError: there is no such device here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise SettingsError(
            f"The device '{device}' cannot be used ({_one_line(error)}). Here are the CPU (cpu) "
            f"and {gpus} GPUs (cuda, cuda:0, ...) that this torch can use."
        ) from error
    return chosen


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return every token id that ends a completion: generation config, config, tokenizer."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            found.update(value if isinstance(value, (list, tuple)) else [value])
    return sorted(found)


def affordable_rows(model: Any, length: int) -> int:
    """Return how many sequences of `length` tokens fit into the memory of the model's device.

    It goes by the memory that the machine has, not by what is free at the moment, so that a
    run started again forms the same batches.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 1)
    share = (getattr(config, "num_key_value_heads", None) or heads) / heads
    cache = 2 * config.num_hidden_layers * config.hidden_size * share * model.dtype.itemsize
    # Gathering and appending hold up to three copies; probabilities take 28 bytes a token.
    row = 3 * cache * length + 28 * config.vocab_size
    if model.device.type == "cuda":
        total = torch.cuda.get_device_properties(model.device).total_memory
        memory = 0.4 * max(total - model.get_memory_footprint(), 0.05 * total)
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8
    return int(min(max(memory // row, 1), _MOST_ROWS.get(model.device.type, 8192)))


@contextlib.contextmanager
def parallel_batches(model: Any) -> Iterator[Callable[..., Iterable[tuple[Any, Any]]]]:
    """Yield a `run(function, batches)` that gives (batch, result) in order.

    A small model on the CPU computes one batch on each core: threads inside its small
    operations would mostly wait for each other.
    """
    threads = torch.get_num_threads()
    if model.device.type != "cpu" or threads == 1 or model.get_memory_footprint() > _SMALL_BYTES:
        yield lambda function, batches: ((batch, function(batch)) for batch in batches)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda function, batches: zip(batches, pool.map(function, batches), strict=True)
    finally:
        # The workers' setting would else be inherited by threads that start later.
        torch.set_num_threads(threads)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
