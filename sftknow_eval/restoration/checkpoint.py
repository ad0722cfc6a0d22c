"""Safetensors checkpoints read in place: no model is built, nothing is loaded whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.artifacts import read_json
from sftknow_eval.drift.tensors import HELD_AS, Array, Weights
from sftknow_eval.errors import CheckpointError, DataError, ModelError
from sftknow_eval.models import SAFETENSORS_BITS, safetensors_header

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: `nbytes` bytes from byte `begin` of the file on."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    begin: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.elements * SAFETENSORS_BITS[self.dtype] // 8


class ModelWeights(Weights, Protocol):
    """A model's weights and where they lie: a checkpoint, or an adapter on its base."""

    @property
    def folder(self) -> Path:
        """The folder with the configuration."""

    @property
    def layout(self) -> Checkpoint:
        """The checkpoint whose files a written model copies in layout."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """All tensors by name."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration."""


class Checkpoint:
    """A folder of safetensors files, single or sharded; use `open` and close it, or `with`."""

    def __init__(self, folder: Path, tensors: dict[str, StoredTensor]) -> None:
        self.folder = folder
        self.tensors: Mapping[str, StoredTensor] = tensors
        self.config: dict[str, Any] = read_json(folder / "config.json")
        self.files = tuple(sorted({tensor.file for tensor in tensors.values()}))
        self._handles = {file: os.open(folder / file, os.O_RDONLY) for file in self.files}

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Open the model in a folder and check its headers against its files.

        Raises:
            ModelError: the folder holds no safetensors weights or no configuration.
            CheckpointError: a shard is missing, truncated or its header is not true.
        """
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} has no config.json: give the folder of a whole model.")
        tensors: dict[str, StoredTensor] = {}
        index = _index(folder)
        for file in _weight_files(folder, index):
            header, data = safetensors_header(folder / file)
            for name, entry in header.items():
                if name in tensors:
                    raise CheckpointError(
                        f"{folder}: tensor '{name}' stands in {tensors[name].file} and in {file}. "
                        "Remove the file that the index does not name."
                    )
                begin = data + entry["data_offsets"][0]
                shape = tuple(entry["shape"])
                tensors[name] = StoredTensor(name, entry["dtype"], shape, file, begin)
        for name, file in (index or {}).items():
            if name not in tensors or tensors[name].file != file:
                raise CheckpointError(
                    f"{folder / INDEX} places tensor '{name}' in {file}, which does not hold it. "
                    "The shards and the index do not belong together: fetch the model again."
                )
        return cls(folder, tensors)

    @property
    def layout(self) -> Checkpoint:
        """The checkpoint itself."""
        return self

    def read(self, name: str, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of tensor `name` from byte `offset` on.

        Raises:
            CheckpointError: the file has become shorter.
        """
        tensor = self.tensors[name]
        self.read_file(tensor.file, tensor.begin + offset, out)

    def gather(self, name: str, offsets: NDArray[np.int64], out_PN: NDArray[np.uint8]) -> None:
        """Fill row p of `out_PN` with the bytes of tensor `name` from byte `offsets[p]` on.

        Raises:
            CheckpointError: the file has become shorter.
        """
        from sftknow_eval.drift.kernels import read_pieces

        tensor = self.tensors[name]
        assert out_PN.flags.c_contiguous
        places = tensor.begin + offsets
        handle, size = self._handles[tensor.file], out_PN.shape[1]
        if read_pieces(handle, places, size, out_PN.ctypes.data) >= 0:
            raise CheckpointError(f"{self.folder / tensor.file} was cut short while it was read.")

    def read_file(self, file: str, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of a weight file from byte `offset` on."""
        done = 0
        while done < out.size:
            count = os.preadv(self._handles[file], [out[done:].data], offset + done)
            if not count:
                raise CheckpointError(f"{self.folder / file} was cut short while it was read.")
            done += count

    def array(self, name: str, buffer: NDArray[np.uint8] | None = None) -> Array:
        """Return a whole tensor in its shape, bfloat16 as uint16.

        Args:
            name: of the tensor.
            buffer: where to put it, if it is large enough; else memory of its own.

        Raises:
            CheckpointError: its type is not bfloat16, float16 or float32.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in HELD_AS:
            raise CheckpointError(f"{self.folder}: tensor '{name}' has the type {tensor.dtype}.")
        if buffer is None or buffer.size < tensor.nbytes:
            buffer = np.empty(tensor.nbytes, np.uint8)
        buffer = buffer[: tensor.nbytes]
        self.read(name, 0, buffer)
        return buffer.view(HELD_AS[tensor.dtype]).reshape(tensor.shape)

    def close(self) -> None:
        """Close the files."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _index(folder: Path) -> dict[str, str] | None:
    """Return which file holds which tensor, if the folder has an index."""
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        places = read_json(path)["weight_map"]
        if not all(isinstance(file, str) and file == Path(file).name for file in places.values()):
            raise TypeError("the files are not names of files beside it")
        return {str(name): file for name, file in places.items()}
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of tensors: {error}.") from error


def _weight_files(folder: Path, index: dict[str, str] | None) -> list[str]:
    if index is not None:
        files = sorted(set(index.values()))
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks the shard {missing[0]}"
                f"{f' and {len(missing) - 1} more' if missing[1:] else ''}, which its index "
                "names. Fetch the model again."
            )
        return files
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if files:
        raise CheckpointError(
            f"{folder} holds {len(files)} safetensors files ({files[0]}, ...) but no {INDEX} "
            "that says which belong to the model. Save the model again with save_pretrained."
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        command = (
            "from transformers import AutoModelForCausalLM as M; "
            f"M.from_pretrained({json.dumps(str(folder))}, dtype='auto')"
            f".save_pretrained({json.dumps(f'{folder}-safetensors')})"
        )
        raise ModelError(
            f"{folder} holds pickled weights only, which are not read here because unpickling "
            f"runs code. If you trust them, convert them with: python -c {json.dumps(command)} "
            "and copy the tokenizer's files over."
        )
    raise ModelError(f"{folder} holds no weights: *.safetensors expected.")
