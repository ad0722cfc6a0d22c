"""The keys around the wanted ranks, kept until the exact ranks are known.

They are about one in a hundred, so that those of a large model fill memory: what goes beyond
a fixed amount lies in a temporary file. The file has no name, and so ends with the process.
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from sftknow_eval.artifacts import is_disk_full
from sftknow_eval.drift import counting
from sftknow_eval.drift.tensors import Counts, Keys
from sftknow_eval.errors import OutOfSpace

MEMORY = 1 << 22  # keys of all intervals together
_BIN_BITS = 11  # so many bins that they stay in the processor's first cache


@dataclass
class _Run:
    """Keys of one interval in a row, in pieces of one tensor each."""

    tensors: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, tensor: int, size: int) -> None:
        if self.tensors and self.tensors[-1] == tensor:
            self.sizes[-1] += size
        else:
            self.tensors.append(tensor)
            self.sizes.append(size)


class Kept:
    """The kept keys of every interval; close it, or use `with`.

    Shapes: T tensors, J intervals, N keys.
    """

    def __init__(self, intervals: int) -> None:
        self._keys_JN = np.empty((intervals, MEMORY // max(1, intervals)), np.uint32)
        self._used_J = np.zeros(intervals, np.int64)
        self._runs = [_Run() for _ in range(intervals)]  # in memory, and the rest in the file
        self._spilled: list[list[tuple[int, _Run]]] = [[] for _ in range(intervals)]
        self._file: io.FileIO | None = None
        self._lock = threading.Lock()

    def add(self, tensor: int, keys_JN: Keys, used_J: Counts) -> None:
        """Keep a tensor's keys, the first `used_J[j]` of each row, from any thread.

        Raises:
            OutOfSpace: the disk filled up.
        """
        with self._lock:
            for j in np.flatnonzero(used_J):
                self._append(int(j), tensor, keys_JN[j, : used_J[j]])

    def _append(self, j: int, tensor: int, keys: Keys) -> None:
        while keys.size:
            row, used = self._keys_JN[j], int(self._used_J[j])
            part = keys[: row.size - used]
            row[used : used + part.size] = part
            self._used_J[j] += part.size
            self._runs[j].add(tensor, part.size)
            keys = keys[part.size :]
            if self._used_J[j] == row.size:
                self._spill(j)

    def _spill(self, j: int) -> None:
        """Write a full row to the file and begin anew."""
        left = memoryview(self._keys_JN[j]).cast("B")
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._spilled[j].append((self._file.tell(), self._runs[j]))
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if is_disk_full(error):
                raise OutOfSpace(
                    f"No space left in {tempfile.gettempdir()} for the temporary file of a "
                    "ranking, a few percent of the size of the model. Free some, or set TMPDIR to "
                    "a folder that has room, and run the same command again."
                ) from error
            raise
        self._used_J[j], self._runs[j] = 0, _Run()

    def size(self, j: int) -> int:
        """Return how many keys of an interval are kept."""
        return len(self._spilled[j]) * self._keys_JN.shape[1] + int(self._used_J[j])

    def keys(self, j: int) -> Iterator[Keys]:
        """Yield an interval's keys, block by block; a block is valid until the next one."""
        return (keys for keys, _ in self._blocks(j))

    def _blocks(self, j: int) -> Iterator[tuple[Keys, _Run]]:
        if self._file is not None and self._spilled[j]:
            block = np.empty_like(self._keys_JN[j])
            for place, run in self._spilled[j]:
                self._file.seek(place)
                self._file.readinto(block)
                yield block, run
        yield self._keys_JN[j, : self._used_J[j]], self._runs[j]

    def at_rank(self, j: int, rank: int, low: int, high: int) -> int:
        """Return the key at a rank of an interval's, 1 for the largest.

        Args:
            j: the interval.
            rank: at most as many as there are keys.
            low: no key lies below.
            high: no key lies above.
        """
        while low < high:
            shift = max(0, (high - low).bit_length() - _BIN_BITS)
            counts = np.zeros((high - low >> shift) + 1, np.int64)
            for keys in self.keys(j):
                counting.histogram(keys, low, shift, counts)
            beyond = np.cumsum(counts[::-1])
            back = int(np.searchsorted(beyond, rank))
            rank -= int(beyond[back - 1]) if back else 0
            low += (counts.size - 1 - back) << shift
            high = low + (1 << shift) - 1
        return low

    def beyond(self, j: int, threshold: int, tensors: int) -> tuple[Counts, Counts]:
        """Return how many of an interval's keys are above and at a threshold, by tensor."""
        above_T, tied_T = (np.zeros(tensors, np.int64) for _ in range(2))
        for keys, run in self._blocks(j):
            pieces = np.array(run.tensors, np.int64), np.array(run.sizes, np.int64)
            counting.count_beyond(keys, *pieces, threshold, above_T, tied_T)
        return above_T, tied_T

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
