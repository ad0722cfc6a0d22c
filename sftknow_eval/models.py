"""Where a model's files are, and the fingerprint that recognises its weights.

A base is recognised by what its tensors hold, not by its path or hub name: a local copy,
sharded differently, has the same fingerprint and so finds the same mastery table.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import cache_dir, digest, read_json, write_json
from sftknow_eval.errors import CheckpointError, ModelError

_READ_BYTES = 1 << 22
_HEADER_LIMIT = 100 << 20


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
        known = ("config.json", "adapter_config.json")
        if not any((folder / file).is_file() for file in known):
            raise ModelError(
                f"The folder {folder} is not a model: it has no config.json (nor an "
                "adapter_config.json). Give the folder that save_pretrained wrote."
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
    """Return the header of a safetensors file and the offset at which its data begins.

    Raises:
        CheckpointError: the file is truncated or its header is not a safetensors header.
    """
    with path.open("rb") as handle:
        prefix = handle.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= size <= min(_HEADER_LIMIT, path.stat().st_size - 8):
            raise CheckpointError(f"{path} is truncated or not a safetensors file.")
        try:
            header = json.loads(handle.read(size))
        except ValueError as error:
            raise CheckpointError(f"{path}: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object.")
    header.pop("__metadata__", None)
    return header, 8 + size


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
        raise ModelError(f"{folder} holds no weights (*.safetensors or *.bin).")
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
