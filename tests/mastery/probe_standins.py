"""A sampler without a model, for tests of the prober's book-keeping."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

from sftknow_eval.mastery.sampling import Request

WORDS = ("London", "Cambridge", "New York", "Erlangen", "Brno", "a mathematician", "Rome", "")


class DiceSampler:
    """Completes each prompt with words drawn by its seed alone; results in shuffled order.

    Args:
        n_samples: completions of each prompt.
        in_flight: requests held before results are given out, as an engine would.
        die_after: raise `KeyboardInterrupt` after so many results, as a user would.
    """

    def __init__(
        self, n_samples: int = 4, in_flight: int = 7, die_after: int | None = None
    ) -> None:
        self.n_samples = n_samples
        self.in_flight = in_flight
        self.die_after = die_after
        self.seen: list[Request] = []
        self.most_waiting = 0
        self.engine: dict[str, Any] = {"engine": "dice", "versions": {"dice": "6"}}

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        waiting: list[Request] = []
        order = random.Random(0)
        given = 0
        source = iter(requests)
        while True:
            while len(waiting) < self.in_flight and (request := next(source, None)) is not None:
                self.seen.append(request)
                waiting.append(request)
            self.most_waiting = max(self.most_waiting, len(waiting))
            if not waiting:
                return
            if given == self.die_after:
                raise KeyboardInterrupt
            request = waiting.pop(order.randrange(len(waiting)))
            given += 1
            yield request.index, [self.text(request, j) for j in range(self.n_samples)]

    def text(self, request: Request, sample: int) -> str:
        key = hashlib.sha256(f"{request.seed + sample}".encode()).digest()
        text = f" {WORDS[key[0] % len(WORDS)]}, or {WORDS[key[1] % len(WORDS)]}."
        ends = [text.index(stop) + len(stop) for stop in request.stops if stop in text]
        return text[: min(ends)] if ends else text

    def describe(self) -> dict[str, Any]:
        return self.engine

    def close(self) -> None:
        """Nothing to release."""
