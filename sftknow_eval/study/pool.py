"""The study's worker processes: started, given steps, watched, replaced when they die."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LOGS = "logs"

# The models of small studies gain nothing from threads; each worker is one thread.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass
class Worker:
    """One process, and the step that it is doing.

    Attributes:
        lane: `cpu` or `gpu`, the queue that it takes from.
        step: name of the step under way; None when it waits.
        warm: whether it was told to import what it will need.
    """

    lane: str
    process: subprocess.Popen[bytes]
    connection: socket.socket
    log: IO[bytes]
    step: str | None = None
    warm: bool = False
    pending: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def give(self, job: dict[str, Any]) -> None:
        """Let it do a step; a worker that has just died is noticed when it is read from."""
        self.step = job["name"]
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(job).encode() + b"\n")

    def read(self) -> bool:
        """Take in what it said; False when it is gone."""
        try:
            block = self.connection.recv(1 << 16)
        except OSError:
            block = b""
        *lines, self.pending = (self.pending + block).split(b"\n")
        self.messages += [json.loads(line) for line in lines]
        return bool(block)


class Pool:
    """A fixed number of workers in each lane, for as long as the block lasts."""

    def __init__(self, root: Path, lanes: dict[str, int]) -> None:
        self._root, self._lanes = root, lanes
        self._selector = selectors.DefaultSelector()
        self._started = 0
        self.workers: list[Worker] = []

    def __enter__(self) -> Pool:
        try:
            for lane, count in self._lanes.items():
                for _ in range(count):
                    self._start(lane)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            self._end(worker)
        self.workers.clear()
        self._selector.close()

    def idle(self, lane: str) -> Iterator[Worker]:
        """Yield the workers of a lane that have nothing to do."""
        yield from [w for w in self.workers if w.lane == lane and w.step is None]

    def wait(self, seconds: float) -> Iterator[tuple[Worker, dict[str, Any] | None]]:
        """Yield what workers say within some time; None for one that has died.

        A worker that died is replaced before it is reported.
        """
        for key, _ in self._selector.select(seconds):
            worker: Worker = key.data
            alive = worker.read()
            messages, worker.messages = worker.messages, []
            yield from ((worker, message) for message in messages)
            if not alive:
                self.workers.remove(worker)
                self._end(worker)
                self._start(worker.lane)
                yield worker, None

    def _start(self, lane: str) -> None:
        ours, theirs = socket.socketpair()
        logs = self._root / LOGS
        logs.mkdir(parents=True, exist_ok=True)
        log = (logs / f"worker-{self._started}.log").open("ab")
        self._started += 1
        with theirs:
            # A session of its own: Ctrl-C reaches the study alone, which then ends its workers,
            # and what a worker started can be ended with it.
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "sftknow_eval.study.worker"),
                    *(str(theirs.fileno()), str(self._root), str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env=_environment(lane),
                start_new_session=True,
            )
        worker = Worker(lane, process, ours, log)
        self.workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _end(self, worker: Worker) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.connection)
        worker.connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        worker.log.close()


def _environment(lane: str) -> dict[str, str]:
    threads = _ONE_THREAD if lane == "cpu" else {}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if lane == "cpu" else {}
    return {**_QUIET, **os.environ, **threads, **hidden}
