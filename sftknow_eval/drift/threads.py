"""One thread per core over a list of items, with errors that reach the caller.

Threads take items in order; when one fails the others stop, and the error of the first
failing item is raised, so that the same fault gives the same message however many threads
there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Worker = TypeVar("_Worker")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(
    items: Sequence[_Item],
    start: Callable[[], _Worker],
    work: Callable[[_Worker, int, _Item], None],
    threads: int | None = None,
) -> list[_Worker]:
    """Call `work(worker, index, item)` for every item and return the threads' workers.

    Args:
        items: taken in order.
        start: makes the buffers and results of one thread.
        work: must release the GIL for most of its time to gain from threads.
        threads: how many; one per core if not given.
    """
    lock = threading.Lock()
    pending = iter(enumerate(items))
    failures: list[tuple[int, BaseException]] = []

    def run(worker: _Worker) -> None:
        while True:
            with lock:
                index, item = next(pending, (-1, None)) if not failures else (-1, None)
            if index < 0:
                return
            try:
                work(worker, index, item)  # type: ignore[arg-type]
            except BaseException as error:
                with lock:
                    failures.append((index, error))
                return

    workers = [start() for _ in range(min(threads or cores(), max(1, len(items))))]
    crew = [threading.Thread(target=run, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    except BaseException as error:  # an interrupt: let the threads finish their items
        with lock:
            failures.append((-1, error))
        for thread in crew:
            thread.join()
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return workers
