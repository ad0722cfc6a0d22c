"""The hand-out of requests with stand-in actors, then two real engines in Ray actors."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.errors import MissingDependency, ModelError, SettingsError
from sftknow_eval.mastery.ray_sampler import RaySampler, _core_share, _get, distribute
from sftknow_eval.mastery.sampling import SEED_STRIDE, Request
from sftknow_eval.mastery.vllm_sampler import VllmSampler

SAMPLING = {"n_samples": 3, "temperature": 0.7, "max_tokens": 8}


def some_requests(count: int) -> list[Request]:
    people = ("Ada Lovelace", "Alan Turing", "Kurt Gödel")
    return [Request(5 * i, f"{people[i % 3]} was born in", SEED_STRIDE * i) for i in range(count)]


@dataclass(eq=False)
class Call:
    actor: Actor
    results: list[tuple[int, list[str]]]


@dataclass
class Method:
    remote: Callable[..., Any]


class StandIn:
    """In Ray's place: calls finish in the order of their start, those of a slow actor last."""

    def __init__(self, slow: Actor | None = None) -> None:
        self.slow = slow

    def wait(self, calls: list[Call], num_returns: int) -> tuple[list[Call], list[Call]]:
        quick = [call for call in calls if call.actor is not self.slow]
        return (quick or calls)[:num_returns], []

    def get(self, calls: list[Call]) -> list[Any]:
        return [call.results for call in calls]


class Actor:
    """Answers each request by its prompt, four behind, as an engine that is kept busy does."""

    def __init__(self) -> None:
        self.held: list[Request] = []
        self.handed: list[int] = []
        self.dropped = False
        self.work, self.drain = Method(self._work), Method(lambda: self._finish(len(self.held)))
        self.abandon = Method(lambda: setattr(self, "dropped", True))

    def _work(self, batch: list[Request]) -> Call:
        self.held += batch
        self.handed.append(len(batch))
        return self._finish(max(0, len(self.held) - 4))

    def _finish(self, count: int) -> Call:
        done, self.held = self.held[:count], self.held[count:]
        return Call(self, [(request.index, [request.prompt]) for request in done])


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_every_request_is_answered_once(count: int) -> None:
    actors = [Actor(), Actor(), Actor()]
    results = list(distribute(StandIn(), some_requests(count), actors, block=8))
    assert sorted(results) == [(r.index, [r.prompt]) for r in some_requests(count)]
    assert not any(actor.held or actor.dropped for actor in actors)


def test_a_slow_actor_is_handed_less() -> None:
    quick, slow = Actor(), Actor()
    assert len(list(distribute(StandIn(slow), some_requests(200), [quick, slow], block=8))) == 200
    assert sum(slow.handed) == 2 * 8  # the calls that it was given at first
    assert sum(quick.handed) == 200 - 2 * 8


def test_requests_are_pulled_as_results_come() -> None:
    pulled = itertools.count()

    def lazily() -> Iterator[Request]:
        for request in some_requests(400):
            next(pulled)
            yield request

    actors = [Actor(), Actor()]
    results = distribute(StandIn(), lazily(), actors, block=8)
    taken = list(itertools.islice(results, 100))
    # Held by actors, and in the calls under way: two blocks each, and one being read.
    assert next(pulled) - len(taken) <= 2 * (4 + 2 * 8) + 8
    results.close()
    assert all(actor.dropped for actor in actors)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    shares = [_core_share([0, 1, 4, 5], 2, number) for number in range(2)]
    assert [share["VLLM_CPU_OMP_THREADS_BIND"] for share in shares] == ["0,1", "4,5"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert _core_share([0], 1, 0)["OMP_NUM_THREADS"] == "7"


def test_ray_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r'pip install "sftknow-eval\[ray\]"'):
        RaySampler("model", data_parallel_size=2, **SAMPLING)


def refusing_class() -> Any:
    """Return the class of a real Ray actor whose calls fail; local, so that it travels whole."""

    class Refusing:
        def work(self, batch: list[Request]) -> None:
            raise SettingsError(f"{len(batch)} prompts are too long")

        def drain(self) -> None:
            pass

        def abandon(self) -> None:
            pass

        def end(self) -> None:
            os._exit(1)

    return Refusing


@pytest.mark.vllm
def test_two_engines_give_the_texts_of_one(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    with pytest.raises(SettingsError, match="tensor_parallel_size"):
        RaySampler(str(random_model), data_parallel_size=2, tensor_parallel=2, **SAMPLING)
    requests = some_requests(60)
    sampler = RaySampler(str(random_model), data_parallel_size=2, in_flight=10, **SAMPLING)
    try:
        first = dict(sampler.sample(requests))
        results = sampler.sample(requests)
        next(results)
        results.close()  # what the engines still hold is dropped
        again = dict(sampler.sample(reversed(requests)))
        record = sampler.describe()

        refusing = ray.remote(refusing_class()).options(num_cpus=0).remote()
        with pytest.raises(SettingsError, match="60 prompts are too long"):
            list(distribute(ray, requests, [refusing], 60))
        with pytest.raises(ModelError, match="the same command goes on"):
            _get(ray, [refusing.end.remote()])
    finally:
        sampler.close()
    assert not ray.is_initialized()
    assert record["data_parallel_size"] == 2
    assert record["dtype"] == "float32"

    alone = VllmSampler(str(random_model), **SAMPLING)
    try:
        expected = dict(alone.sample(requests))
    finally:
        alone.close()
    assert first == expected
    assert again == expected
