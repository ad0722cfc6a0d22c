"""The canary: does a model compute with the weights that the restoration says?

What a loader received proves the blend; it does not prove that a layer uses it. So rows of
every weight matrix, as it computes, are compared with rows of the tensors that were handed
to the loader. Rows are compared by content, without names: engines fuse matrices (q, k and
v), transpose, reorder and slice them, each in its own way, but a row stays a row.

Of a row, the values in some columns are taken: in all of them up to 256, in 4 beyond, which of
a matrix with a thousand rows makes thousands. More would cost a CPU engine, which has to compute
them, as much as the load itself. With
tensor parallelism a worker holds some rows of a matrix, or the columns of its share of all
rows: both forms are expected.

Legend: N rows, K columns, C columns taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from sftknow_eval.errors import CheckpointError

Hashes = NDArray[np.uint64]

_ALL_COLUMNS = 256
_TAKEN = 4
_NONE = np.zeros(1, np.uint64)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def runs_of(k: int) -> list[slice]:
    """Return which of `k` columns are taken: all, or single ones spread over the row."""
    if k <= _ALL_COLUMNS:
        return [slice(0, k)]
    places = [round(i * (k - 1) / (_TAKEN - 1)) for i in range(_TAKEN)]
    return [slice(place, place + 1) for place in places]


def columns_of(k: int) -> torch.Tensor:
    """Return the numbers of the columns that are taken."""
    return torch.cat([torch.arange(run.start, run.stop) for run in runs_of(k)])


def taken(matrix_NK: torch.Tensor) -> torch.Tensor:
    """Return the columns that are taken of a matrix."""
    return torch.cat([matrix_NK[:, run] for run in runs_of(matrix_NK.shape[1])], dim=1)


@functools.lru_cache(maxsize=64)
def _factors(k: int, count: int) -> Hashes:
    random = np.random.default_rng(k)
    return random.integers(1 << 62, size=count, dtype=np.uint64) | np.uint64(1)


def row_hashes(rows_NC: torch.Tensor, k: int) -> Hashes:
    """Return a 64-bit hash of each row of values taken from rows of `k` columns.

    Zeros count as positive: a product with an identity matrix loses their sign.
    """
    values = rows_NC.detach().cpu().contiguous()
    size = values.element_size()
    bits = values.view(_BITS[size]).numpy().view(f"u{size}")
    negative_zero = bits == 1 << (8 * size - 1)
    if negative_zero.any():
        bits = np.where(negative_zero, 0, bits).astype(bits.dtype)
    # Several values make up a word of 64 bits.
    if spare := -bits.shape[1] % (8 // size):
        bits = np.pad(bits, ((0, 0), (0, spare)))
    words = bits.view(np.uint64)
    hashes: Hashes = words @ _factors(k, words.shape[1])
    return hashes ^ (hashes >> np.uint64(31))


def _among(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Say of each hash whether it is among known ones, which are sorted."""
    if not known.size:
        return np.zeros(hashes.shape, np.bool_)
    places = np.minimum(np.searchsorted(known, hashes), known.size - 1)
    found: NDArray[np.bool_] = known[places] == hashes
    return found


def _within(hashes: Hashes, known: Hashes) -> bool:
    """Say whether all hashes are among known ones; of both, each is there once."""
    return _distinct(np.concatenate([hashes, known])).size == known.size


def _distinct(hashes: Hashes) -> Hashes:
    """Return the hashes sorted, each once."""
    ordered = np.sort(hashes)
    first = np.ones(ordered.size, np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix as a model computes with it, in the columns taken.

    Attributes:
        where: name of the layer.
        rows_NC: the values.
        k: columns of the whole row.
    """

    where: str
    rows_NC: torch.Tensor
    k: int

    @classmethod
    def of(cls, where: str, matrix: torch.Tensor) -> Iterator[Rows]:
        """Yield the rows of a matrix, or of each matrix in a stack of them."""
        k = matrix.shape[-1]
        for part in matrix.detach().reshape(-1, *matrix.shape[-2:]):
            yield cls(where, taken(part), k)


@dataclass
class _Tensor:
    forms: list[Hashes]
    checked: bool


@dataclass
class Expectation:
    """What the tensors handed to a loader look like from within the model.

    Attributes:
        dtype: in which the model computes.
        ranks: workers that share each matrix.
        rank: which of them this is.
    """

    dtype: torch.dtype
    ranks: int = 1
    rank: int = 0
    _tensors: dict[str, list[_Tensor]] = field(default_factory=dict)
    _vectors: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, name: str, tensor: torch.Tensor, *, checked: bool) -> None:
        """Note a tensor of the checkpoint.

        Args:
            name: in the checkpoint.
            tensor: as handed to the loader.
            checked: the model must be seen to compute with it.
        """
        if not tensor.is_floating_point():
            return
        if tensor.dim() < 2:
            if checked:
                self._vectors[name] = tensor.to(self.dtype, copy=True).reshape(-1)
            return
        parts = tensor.reshape(-1, *tensor.shape[-2:])
        self._tensors[name] = [_Tensor(list(self._forms(part)), checked) for part in parts]

    def _forms(self, matrix: torch.Tensor) -> Iterator[Hashes]:
        """Yield the row hashes of a matrix and its transpose, whole and in a worker's share."""
        for oriented in (matrix, matrix.t()):
            k = oriented.shape[1]
            shares = {(0, k)}
            if self.ranks > 1 and k % self.ranks == 0:
                shares.add((self.rank * (k // self.ranks), k // self.ranks))
            for start, width in sorted(shares):
                share_NK = oriented[:, start : start + width]
                yield row_hashes(taken(share_NK).to(self.dtype), width)

    def check(
        self, rows: Iterable[Rows], vectors: Iterable[torch.Tensor], *, whole: bool = True
    ) -> str:
        """Compare with what a model computes with, and return the checksum of that.

        Args:
            rows: of every matrix.
            vectors: every vector of weights.
            whole: this worker holds (its share of) every tensor, as without pipelines.

        Raises:
            CheckpointError: names a layer that computes with other weights, or a tensor that
                no layer computes with.
        """
        seen = [(entry.where, row_hashes(entry.rows_NC.to(self.dtype), entry.k)) for entry in rows]
        used = _distinct(np.concatenate([_NONE, *(hashes for _, hashes in seen)]))
        packed = [(v.to(self.dtype) + 0.0).cpu().reshape(-1) for v in vectors]
        # Mostly every matrix is whole and as it is stored; if not, it takes longer to say.
        plain = self._rows(lambda part: part.forms[:1])
        if not _within(used, plain):
            self._refuse_foreign(seen)
        if whole:
            needed = self._rows(lambda part: part.forms[:1] if part.checked else [])
            self._refuse_unused(used, packed, matrices=not _within(needed, used))
        state = xxhash.xxh3_128(used.tobytes())
        for digest in sorted(xxhash.xxh3_64_digest(_raw(vector)) for vector in packed):
            state.update(digest)
        return state.hexdigest()

    def _rows(self, forms: Callable[[_Tensor], list[Hashes]]) -> Hashes:
        """Return the hashes of some of the tensors' forms, and that of a row of zeros."""
        parts = [part for parts in self._tensors.values() for part in parts]
        # Padding is zero, and the hash of zeros is zero.
        return _distinct(np.concatenate([_NONE, *(form for p in parts for form in forms(p))]))

    def _holds(self, used: Hashes, form: Hashes) -> bool:
        """Say whether a tensor's rows, or a worker's share of them, are computed with."""
        found = _among(np.sort(form), used)
        return bool(found.all() if self.ranks == 1 else found.any())

    def _refuse_foreign(self, seen: list[tuple[str, Hashes]]) -> None:
        known = self._rows(lambda part: part.forms)
        for where, hashes in seen:
            wrong = int(np.count_nonzero(~_among(hashes, known)))
            if wrong:
                raise CheckpointError(
                    f"The canary failed: the layer '{where}' computes with {wrong} rows of weights "
                    "that are not those of the restored model. The engine is ended, as its answers "
                    "would be of no known model. Write the restored model with 'sftknow restore' "
                    "and load that."
                )

    def _refuse_unused(self, used: Hashes, packed: list[torch.Tensor], *, matrices: bool) -> None:
        for name, parts in self._tensors.items() if matrices else ():
            for part in parts:
                if part.checked and not any(self._holds(used, form) for form in part.forms):
                    raise _unused(name)
        held = {_raw(vector) for vector in packed}
        for name, vector in self._vectors.items():
            size = vector.numel() // self.ranks
            share = vector[self.rank * size :][:size] if self.ranks > 1 else vector
            needles = {_raw(vector + 0.0), _raw(share + 0.0)}
            if not needles & held and not any(n in hay for n in needles for hay in held):
                raise _unused(name)


def _raw(vector: torch.Tensor) -> bytes:
    return vector.contiguous().view(torch.uint8).numpy().tobytes()


def _unused(name: str) -> CheckpointError:
    return CheckpointError(
        f"The canary failed: no layer computes with the restored tensor '{name}'. The engine is "
        "ended, as its answers would be of no known model. Write the restored model with "
        "'sftknow restore' and load that."
    )
