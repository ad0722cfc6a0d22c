"""The Ray sampler: one vLLM engine an actor, requests handed out in blocks as they are wanted.

Each actor always has a call waiting behind the one it works on, and keeps requests in its
engine from one call to the next: no engine waits for the others or for this process. Which
actor answers a request does not matter, since its texts depend on prompt and seed only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sftknow_eval import vllm_support
from sftknow_eval.errors import MissingDependency, ModelError, SettingsError
from sftknow_eval.mastery.sampling import Request
from sftknow_eval.mastery.vllm_engine import check_arguments

INSTALL = 'pip install "sftknow-eval[ray]"'

Results = list[tuple[int, list[str]]]

# Arguments of VllmSampler that are not the engine's.
_OURS = ("in_flight", "revision")

# Calls of each actor that are under way: one worked on, one waiting.
_CALLS = 2


class EngineActor:
    """What lives in a Ray actor: a sampler, and what it has not yet given back."""

    def start(self, model: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Start the engine; return its record, and how many requests to hand over at once."""
        from sftknow_eval.mastery.vllm_sampler import VllmSampler

        self._sampler = VllmSampler(model, **arguments)
        self._block = max(1, self._sampler.in_flight // 2)
        return self._sampler.describe(), self._block

    def work(self, requests: Sequence[Request]) -> Results:
        """Take over requests, and return what finishes until there is room for as many."""
        self._sampler.submit(requests)
        results: Results = []
        while self._sampler.pending > self._sampler.in_flight - self._block:
            results += self._sampler.collect()
        return results

    def drain(self) -> Results:
        """Return what is left, when no more requests come."""
        results: Results = []
        while self._sampler.pending:
            results += self._sampler.collect()
        return results

    def abandon(self) -> None:
        """Drop what is left."""
        self._sampler.abandon()

    def close(self) -> None:
        """Stop the engine."""
        self._sampler.close()


class RaySampler:
    """Draws completions with several vLLM engines, each in a Ray actor.

    Uses the Ray cluster that this process or RAY_ADDRESS names, else starts one on this
    machine for as long as the sampler lives.

    Args:
        model: local folder or hub id, to be found on every machine of the cluster.
        data_parallel_size: number of engines.
        n_samples: completions of each prompt.
        temperature: above 0.
        max_tokens: the most new tokens of a completion.
        engine_args: see `VllmSampler`; each engine takes tensor_parallel_size GPUs.

    Raises:
        MissingDependency: Ray or vLLM is not installed.
        ModelError: an engine did not start.
        SettingsError: an unknown argument, or more GPUs asked for than there are.
    """

    def __init__(
        self,
        model: str,
        *,
        data_parallel_size: int,
        n_samples: int,
        temperature: float,
        max_tokens: int,
        **engine_args: Any,
    ) -> None:
        ray = import_ray()
        if data_parallel_size < 1:
            raise SettingsError(
                f"data_parallel_size must be at least 1, found {data_parallel_size}."
            )
        arguments = {name: engine_args[name] for name in engine_args if name not in _OURS}
        check_arguments(arguments)
        self.n_samples = n_samples
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._actors: list[Any] = []
        how = {"n_samples": n_samples, "temperature": temperature, "max_tokens": max_tokens}
        try:
            per_engine = int(arguments.get("tensor_parallel_size", 1))
            options = actor_options(ray, data_parallel_size, per_engine)
            self._actors = [ray.remote(EngineActor).options(**each).remote() for each in options]
            starts = [actor.start.remote(str(model), how | engine_args) for actor in self._actors]
            self._described, self._block = _get(ray, starts)[0]
        except BaseException:
            self.close()
            raise

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        """Yield (request index, its completions in sample order) as they come in."""
        return distribute(import_ray(), requests, self._actors, self._block)

    def describe(self) -> dict[str, Any]:
        """Return what one engine says of itself, and how many there are."""
        return {
            **self._described,
            "data_parallel_size": len(self._actors),
            "ray": importlib.metadata.version("ray"),
        }

    def close(self) -> None:
        """Stop the engines, and Ray where it was started here."""
        ray = import_ray()
        actors, self._actors = self._actors, []
        if not ray.is_initialized():
            return
        if closing := [actor.close.remote() for actor in actors]:
            ray.wait(closing, num_returns=len(closing), timeout=30)
        for actor in actors:
            ray.kill(actor)
        if self._started_ray:
            ray.shutdown()


def import_ray() -> Any:
    """Return the module `ray`.

    Raises:
        MissingDependency: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingDependency("ray", "Sampling with several engines", INSTALL)
    return importlib.import_module("ray")


def actor_options(ray: Any, engines: int, gpus_each: int) -> list[dict[str, Any]]:
    """Return the Ray options of every actor: its GPUs, or its share of the cores.

    Raises:
        SettingsError: the cluster has fewer GPUs than are asked for.
    """
    if not vllm_support.is_cpu_build():
        there = int(ray.cluster_resources().get("GPU", 0))
        if there < engines * gpus_each:
            raise SettingsError(
                f"{engines} engines of {gpus_each} GPUs need {engines * gpus_each} GPUs; Ray has "
                f"{there}. Lower data_parallel_size or tensor_parallel_size."
            )
        return [{"num_gpus": gpus_each, "num_cpus": 1} for _ in range(engines)]
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // engines)
    # Half a core each: Ray plans with cores, and a small machine has one for two engines.
    return [
        {"num_cpus": min(0.5, len(cores) / engines / 2), "runtime_env": {"env_vars": variables}}
        for variables in (_core_share(cores, share, i) for i in range(engines))
    ]


def _core_share(cores: list[int], share: int, number: int) -> dict[str, str]:
    first = number * share % len(cores)
    mine = ",".join(map(str, cores[first : first + share]))
    wanted = {"OMP_NUM_THREADS": str(share), "VLLM_CPU_OMP_THREADS_BIND": mine}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def distribute(
    ray: Any, requests: Iterable[Request], actors: Sequence[Any], block: int
) -> Iterator[tuple[int, list[str]]]:
    """Hand requests to actors in blocks as they get room, and yield results as they come.

    Args:
        ray: the module.
        requests: pulled lazily, at most a few blocks an actor ahead of the results.
        actors: handles of actors with the methods of `EngineActor`.
        block: requests a call.
    """
    source = iter(requests)
    calls: dict[Any, int] = {}
    under_way = [0] * len(actors)
    drained: set[int] = set()

    def hand_out(number: int) -> bool:
        if batch := list(itertools.islice(source, block)):
            start(number, actors[number].work.remote(batch))
        return bool(batch)

    def start(number: int, call: Any) -> None:
        calls[call] = number
        under_way[number] += 1

    try:
        for _, number in itertools.product(range(_CALLS), range(len(actors))):
            hand_out(number)
        while calls:
            done = ray.wait(list(calls), num_returns=1)[0][0]
            number = calls.pop(done)
            under_way[number] -= 1
            # More work first, so that the actor need not wait for the reader of the results.
            if number not in drained and not hand_out(number) and not under_way[number]:
                drained.add(number)
                start(number, actors[number].drain.remote())
            yield from _get(ray, [done])[0]
    finally:
        for actor in actors if calls else ():
            actor.abandon.remote()


def _get(ray: Any, references: list[Any]) -> list[Any]:
    """Return results, with an actor's own errors as themselves.

    Raises:
        SettingsError: as the actor raised it.
        ModelError: as the actor raised it, or because the actor died.
    """
    try:
        return list(ray.get(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (ModelError, SettingsError)):
            raise type(error.cause)(str(error.cause)) from error
        raise
    except ray.exceptions.RayActorError as error:
        cause = getattr(error, "cause", None)
        raise ModelError(
            f"A Ray actor with a vLLM engine ended: {cause or error} What was finished before "
            "is kept: the same command goes on from there."
        ) from error
