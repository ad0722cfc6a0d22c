"""The interface between the prober and whatever draws completions.

A sampler pulls requests lazily and yields results in any order, so that the prober can
stream a hundred thousand facts through it in flat memory while the engine stays busy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

# Seeds are multiples of this, so that sample j of a request can use seed + j (vLLM does).
SEED_STRIDE = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt of which the sampler draws completions.

    Attributes:
        index: the caller's number for this request; results carry it back.
        prompt: text, without special tokens (the tokenizer adds its own).
        seed: stream of random numbers of this (fact, template), a multiple of `SEED_STRIDE`.
        stops: texts after which a completion may end (kept in it); empty for none.
    """

    index: int
    prompt: str
    seed: int
    stops: tuple[str, ...] = ()


class Sampler(Protocol):
    """Draws `n_samples` completions of every request, as text without special tokens."""

    n_samples: int

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        """Yield (request index, its completions in sample order) as they are finished.

        Completion j of a request depends on its prompt and seed only, not on the other
        requests, their order or the batch.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what goes into the record of a probe: engine, versions, dtype, arguments."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


def request_seed(seed: int, fact_id: str, template: int) -> int:
    """Return the seed of one (fact, template), below 2**62 and a multiple of `SEED_STRIDE`."""
    key = hashlib.sha256(f"{seed}|{fact_id}|{template}".encode()).digest()
    return int.from_bytes(key[:8], "big") % (1 << 62) // SEED_STRIDE * SEED_STRIDE
