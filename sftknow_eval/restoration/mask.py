"""Masks: the restored elements spelled out, for exchange with other tools.

A mask is a safetensors file with one tensor for each tensor to restore, by the fine-tune's
name: either `U8`, one bit an element (flat index i is bit i % 8 of byte i // 8, the last
byte filled with zeros), or `BOOL`, one byte an element, in any shape of as many elements.
A set bit means that the element goes back to the base's value.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import CheckpointError
from sftknow_eval.models import safetensors_header


class Mask:
    """An opened mask file; its bits are read as they are needed."""

    def __init__(self, path: Path) -> None:
        """Open a mask.

        Raises:
            CheckpointError: not a safetensors file of `U8` or `BOOL` tensors.
        """
        self.path = path
        self._entries, self._data = safetensors_header(path)
        for name, entry in self._entries.items():
            if entry["dtype"] not in ("U8", "BOOL"):
                raise CheckpointError(
                    f"{path}: mask '{name}' has the type {entry['dtype']}; expected U8 (packed "
                    "bits) or BOOL."
                )

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The fine-tune's names of all tensors that change."""
        return frozenset(self._entries)

    @functools.cached_property
    def digest(self) -> str:
        """A checksum of the file."""
        state = xxhash.xxh3_128()
        with self.path.open("rb") as handle:
            while block := handle.read(1 << 20):
                state.update(block)
        return state.hexdigest()

    def base_name(self, name: str) -> str:
        """Return the base's name of a tensor: the same."""
        return name

    def ranked_name(self, name: str) -> str:
        """Return the name itself: a mask names every tensor that it changes."""
        return name

    def check(self, name: str, elements: int) -> None:
        """Refuse a mask that does not fit a tensor.

        Raises:
            CheckpointError: names the tensor and both sizes.
        """
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        expected = elements if entry["dtype"] == "BOOL" else -(-elements // 8)
        spare = 0
        if entry["dtype"] == "U8" and end - begin == expected and elements % 8:
            spare = int(self._read(end - 1, 1)[0]) >> (elements % 8)
        if end - begin != expected or spare:
            raise CheckpointError(
                f"{self.path}: the mask of tensor '{name}' holds {end - begin} bytes"
                f"{' with bits beyond its end' if spare else ''}, but the tensor's {elements} "
                f"elements need {expected}. The mask belongs to another model."
            )

    def bits(self, name: str, start: int, count: int) -> NDArray[np.bool_]:
        """Return which of `count` elements from flat index `start` on go back."""
        entry = self._entries[name]
        begin = entry["data_offsets"][0]
        if entry["dtype"] == "BOOL":
            return np.asarray(self._read(begin + start, count) != 0)
        first = start // 8
        packed = self._read(begin + first, -(-(start + count) // 8) - first)
        bits = np.unpackbits(packed, bitorder="little")[start % 8 :][:count]
        return bits.view(np.bool_)

    def restored(self, name: str) -> int:
        """Return how many elements of a tensor go back."""
        begin, end = self._entries[name]["data_offsets"]
        packed = self._read(begin, end - begin)
        if self._entries[name]["dtype"] == "BOOL":
            return int(np.count_nonzero(packed))
        return int(np.unpackbits(packed).sum())

    def _read(self, offset: int, count: int) -> NDArray[np.uint8]:
        with self.path.open("rb") as handle:
            handle.seek(self._data + offset)
            return np.frombuffer(handle.read(count), np.uint8)


def write_mask(
    path: Path,
    sizes: Mapping[str, int],
    chosen: Callable[[str], NDArray[np.bool_]],
    metadata: Mapping[str, str],
) -> None:
    """Write a mask of packed bits, one tensor in memory at a time.

    Args:
        path: the file.
        sizes: elements of each tensor by name.
        chosen: returns which elements of a tensor go back, in flat order.
        metadata: what to note in the file.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in sorted(sizes):
        size = -(-sizes[name] // 8)
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as partial, partial.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(sizes):
            handle.write(np.packbits(chosen(name), bitorder="little").tobytes())
