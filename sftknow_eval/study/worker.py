"""A worker: a process that does one step after another and imports the heavy libraries once.

The study talks to it over a socket in JSON lines. A worker ends with the study, however that
ends: the kernel is asked to kill it with its parent, and where there is no such request to be
made, a thread notices that the socket has been closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from queue import Queue
from typing import Any

from sftknow_eval.errors import OutOfSpace, SftknowError
from sftknow_eval.study.actions import perform
from sftknow_eval.study.job import LeftOut

# Held by every worker while it lives: a study that is started anew waits for those of a study
# that was killed.
WORKERS_LOCK = ".workers.lock"

_PR_SET_PDEATHSIG = 1
_PROGRESS_EVERY = 0.5
# A job that only imports.
WARM = "warm"
_MODULES = {
    "train": ("trl", "trl.trainer.sft_trainer", "peft"),
    "evaluate": ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface"),
    "sweep": ("sftknow_eval.restoration.hf_model", "sftknow_eval.sweep.run"),
}


def main(arguments: list[str]) -> None:
    """Serve steps: `arguments` are the socket's descriptor, the study's folder, the parent."""
    descriptor, root, parent = int(arguments[0]), Path(arguments[1]), int(arguments[2])
    _end_with(parent)
    held = (root / WORKERS_LOCK).open("a")  # open until this process ends
    fcntl.flock(held, fcntl.LOCK_SH)
    channel = _Channel(socket.socket(fileno=descriptor))
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    in_steps, known = 0.0, set()
    while True:
        job = channel.jobs.get()
        end = _do(job, root, channel)
        in_steps += end["cpu_seconds"]
        if job["kind"] not in known:
            known.add(job["kind"])
            _set_libraries_aside()
        channel.send(end | {"own_cpu_seconds": _cpu_seconds() - in_steps})


def _end_with(parent: int) -> None:
    """Ask the kernel to kill this process when the study's process ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request was made
        os._exit(1)


class _Channel:
    """Both directions of the socket; the end of the study ends this process."""

    def __init__(self, connection: socket.socket) -> None:
        self.jobs: Queue[dict[str, Any]] = Queue()
        self._connection = connection
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._connection.makefile("r") as lines:
            for line in lines:
                self.jobs.put(json.loads(line))
        os._exit(0)  # the study has ended; whatever is under way is no longer wanted

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._connection.sendall(json.dumps(message).encode() + b"\n")


def _import_for(kinds: list[str]) -> None:
    """Import what kinds of steps will need, while others make what they wait for."""
    for kind in kinds:
        for module in _MODULES.get(kind, ()):
            with contextlib.suppress(ImportError):  # said when the step itself wants it
                importlib.import_module(module)


def _set_libraries_aside() -> None:
    """Spare the garbage collector the millions of objects that imported libraries keep for good.

    Engines and trainers collect garbage whenever a model is let go, and each time took 0.2 s.
    """
    gc.collect()
    gc.freeze()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _do(job: dict[str, Any], root: Path, channel: _Channel) -> dict[str, Any]:
    if job["kind"] == WARM:
        _import_for(job["kinds"])
        return {"event": "end", "status": "done", "cpu_seconds": 0.0}
    said = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _PROGRESS_EVERY:
            said = now
            channel.send({"event": "progress", "what": what, "done": done, "total": total})

    cpu, began = _cpu_seconds(), time.monotonic()
    end: dict[str, Any] = {"event": "end", "status": "done", "reason": None, "reused": False}
    try:
        end["reused"] = perform(job, root, progress)
    except LeftOut as reason:
        end |= {"status": "left out", "reason": str(reason)}
    except OutOfSpace as error:
        end |= {"status": "failed", "reason": str(error), "fatal": True}
    except SftknowError as error:
        end |= {"status": "failed", "reason": str(error)}
    except Exception as error:
        # Whatever a library raises: the study goes on with what does not depend on this step.
        traceback.print_exc()
        words = " ".join(str(error).split())
        end |= {"status": "failed", "reason": f"{type(error).__name__}: {words}"}
    return end | {"cpu_seconds": _cpu_seconds() - cpu, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main(sys.argv[1:])
