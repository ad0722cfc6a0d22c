"""Where a model's files are, and the fingerprint that recognises its weights.

A base is recognised by what its tensors hold, not by its path or hub name: a local copy,
sharded differently, has the same fingerprint and so finds the same mastery table.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import cache_dir, digest, read_json, write_json
from sftknow_eval.errors import CheckpointError, ModelError

ADAPTER_CONFIG = "adapter_config.json"

_READ_BYTES = 1 << 22
_HEADER_LIMIT = 100 << 20

# Bits of one element of each type that the safetensors format knows.
SAFETENSORS_BITS = (
    dict.fromkeys(("F64", "I64", "U64", "C64"), 64)
    | dict.fromkeys(("F32", "I32", "U32"), 32)
    | dict.fromkeys(("BF16", "F16", "I16", "U16"), 16)
    | dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("I8", "U8", "BOOL"), 8)
    | {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter of PEFT and no whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def locate_model(name: str, revision: str | None = None) -> Path:
    """Return the local folder of a model: the folder itself, or its hub snapshot.

    Args:
        name: local folder or Hugging Face hub id.
        revision: branch, tag or commit, for hub ids.

    Raises:
        ModelError: neither a model folder nor a snapshot that can be had.
    """
    folder = Path(name)
    if folder.is_dir():
        known = ("config.json", ADAPTER_CONFIG)
        if not any((folder / file).is_file() for file in known):
            raise ModelError(
                f"The folder {folder} is not a model: it has no config.json (nor an "
                f"{ADAPTER_CONFIG}). Give the folder that save_pretrained wrote."
            )
        return folder
    if folder.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise ModelError(f"The model folder {name} does not exist.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision))
    except Exception as error:
        raise ModelError(
            f"The model '{name}'{f' at revision {revision}' if revision else ''} is neither a "
            f"local folder nor could it be fetched from the Hugging Face hub: {error}. Check the "
            "name, the revision and the network (or your login, for a gated model)."
        ) from error


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the checked header of a safetensors file and the offset at which its data begins.

    Every entry has a known type, and its shape, type and offsets agree; the tensors fill the
    rest of the file without gap or overlap.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or its header is not true.
    """
    try:
        with path.open("rb") as handle:
            total = os.fstat(handle.fileno()).st_size
            prefix = handle.read(8)
            size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= size <= min(_HEADER_LIMIT, total - 8):
                raise CheckpointError(
                    f"{path} is truncated or not a safetensors file: fetch or save it again."
                )
            raw = handle.read(size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object.")
    header.pop("__metadata__", None)
    _check_entries(path, header, total - 8 - size)
    return header, 8 + size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' stands in it twice")
    return entries


def _whole_numbers(value: Any, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _check_entries(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    ends: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and _whole_numbers(entry.get("shape"))
            and len(entry["shape"]) <= 64
            and _whole_numbers(entry.get("data_offsets"), 2)
        ):
            raise CheckpointError(
                f"{path}: the header's entry for '{name}' lacks a dtype, a shape or two offsets."
            )
        begin, end = entry["data_offsets"]
        bits = SAFETENSORS_BITS.get(entry["dtype"])
        if bits is None:
            raise CheckpointError(
                f"{path}: tensor '{name}' has the unknown type {entry['dtype']!r} "
                f"(known: {', '.join(SAFETENSORS_BITS)})."
            )
        if math.prod(entry["shape"]) * bits != 8 * (end - begin):
            raise CheckpointError(
                f"{path}: the header lies about tensor '{name}': shape {entry['shape']} of type "
                f"{entry['dtype']} does not fill offsets {begin} to {end}."
            )
        ends.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(ends):
        if begin != reached:
            raise CheckpointError(
                f"{path}: the header lies about tensor '{name}': it begins at byte {begin} of the "
                f"data, where the tensors before it end at {reached}."
            )
        reached = end
    if reached != data_bytes:
        raise CheckpointError(
            f"{path} holds {data_bytes} bytes of data, but its header promises {reached}: the "
            "file is truncated or damaged. Fetch or save it again."
        )


def _tensor_line(path: Path, name: str, entry: dict[str, Any], data: int) -> str:
    begin, end = entry["data_offsets"]
    checksum = hashlib.sha256()
    with path.open("rb") as handle:
        handle.seek(data + begin)
        left = end - begin
        while left:
            block = handle.read(min(_READ_BYTES, left))
            if not block:
                raise CheckpointError(f"{path} is truncated: tensor '{name}' is cut off.")
            checksum.update(block)
            left -= len(block)
    return f"{name} {entry['dtype']} {entry['shape']} {checksum.hexdigest()}"


def _file_line(path: Path) -> str:
    with path.open("rb") as handle:
        return f"{path.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}"


def weight_fingerprint(folder: Path) -> str:
    """Return a SHA-256 over all tensors of a model folder: name, dtype, shape and bytes.

    It does not depend on how the tensors are sharded. Folders without safetensors files are
    recognised by their `.bin` files instead. The result is remembered in the cache by path,
    size and time of change, as reading a large model takes a while.

    Raises:
        ModelError: the folder holds no weights.
        CheckpointError: a weight file cannot be read.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    files = [file for file in files if file.name != "training_args.bin"]
    if not files:
        raise ModelError(
            f"{folder} holds no weights (*.safetensors or *.bin). Fetch or save the model again."
        )
    if gone := [file.name for file in files if not file.exists()]:
        raise ModelError(
            f"{folder} has no content for {', '.join(gone)}: links that lead nowhere, as a hub "
            "cache has that was cleaned up. Fetch the model again."
        )
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    memory = cache_dir() / "fingerprints" / f"{digest([str(folder.resolve()), stamps])}.json"
    if memory.is_file():
        return str(read_json(memory)["fingerprint"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if files[0].suffix == ".bin":
            lines = list(pool.map(_file_line, files))
        else:
            jobs = []
            for file in files:
                header, data = safetensors_header(file)
                jobs += [(file, name, entry, data) for name, entry in header.items()]
            lines = list(pool.map(lambda job: _tensor_line(*job), jobs))
    fingerprint = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    write_json(memory, {"fingerprint": fingerprint, "folder": str(folder.resolve())})
    return fingerprint
