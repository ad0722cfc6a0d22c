"""The scheduler: gives steps to workers until all are finished, failed or left out.

What is finished is in the journal and is not done again. A step that fails takes with it only
what depends on it; a worker that dies is replaced, and its step tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest
from sftknow_eval.errors import OutOfSpace, SettingsError
from sftknow_eval.study.plan import Plan
from sftknow_eval.study.pool import Pool, Worker
from sftknow_eval.study.step import Entry, Journal, Status, Step, digests
from sftknow_eval.study.worker import WARM, WORKERS_LOCK

_TRIES = 3
_PATIENCE = 30.0
_WAIT = 10.0
_LOCK = ".study.lock"
# Kinds that go on where they stopped when they are started again on the same settings.
_GOES_ON = frozenset({"probe", "sweep", "train"})
# What others wait for comes first; long steps come before short ones, so that none is left
# alone at the end.
_URGENCY = {"world": 0, "probe": 0, "train": 1, "sweep": 2}


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be shown: a step began, is under way, or ended.

    Attributes:
        step: None where it is about all steps: `done` of them were finished before.
        what: `begin`, `end`, `given up` (for what it needs is not there), or what is being done.
        entry: what became of a step that ended.
        done, total: how far it is.
    """

    step: Step | None
    what: str
    entry: Entry | None = None
    done: int = 0
    total: int = 0


OnEvent = Callable[[Event], None]


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a study's folder for this process; the lock ends with it, however it ends.

    Raises:
        SettingsError: another study is running in it, or it is of something else.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder {root} cannot be made: {error.strerror}.") from error
    if any(root.iterdir()) and not (root / _LOCK).is_file():
        raise SettingsError(
            f"{root} holds something else than a study. Give a folder that is empty or does not "
            "exist with --out."
        )
    with (root / _LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"Another study is running in {root}. Wait until it has ended, or choose another "
                "--out."
            ) from error
        yield


class Scheduler:
    """One pass over a plan's steps.

    Args:
        plan: the steps.
        root: the study's folder, which is held by this process.
        wanted: names of the steps to be done; each with all that it needs.
        on_event: told of everything that happens.
        on_whole: called with what became of the steps before one that looks at all of them.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        wanted: set[str],
        on_event: OnEvent,
        on_whole: Callable[[Mapping[str, Entry]], None] = lambda entries: None,
    ) -> None:
        self._steps, self._wanted = plan.steps, wanted
        self._gpu = plan.study.compute.device == "gpu"
        self._root, self._tell, self._tell_whole = root, on_event, on_whole
        self._journal = Journal(root)
        self._digests = digests(plan.steps)
        self.entries: dict[str, Entry] = {}
        self._tries: Counter[str] = Counter()
        self._running: set[str] = set()
        self._own: dict[int, float] = {}
        self.overhead: dict[str, float] = {}

    def run(self, workers: int) -> dict[str, Entry]:
        """Do what is wanted and not finished; return what became of every step, as far as known.

        Raises:
            OutOfSpace: the disk filled up; what was finished is kept.
        """
        self.take_finished()
        before = len(self._wanted & self.entries.keys())
        self._tell(Event(None, "finished before", None, before))
        wait_for_workers(self._root)
        if open_steps := self._open():
            gpu = any(self._lane(step) == "gpu" for step in open_steps)
            cpu = any(self._lane(step) == "cpu" for step in open_steps)
            with Pool(self._root, {"gpu": int(gpu), "cpu": workers if cpu else 0}) as pool:
                self._work(pool, workers)
                self.overhead["workers"] = sum(self._own.values())
        return self.entries

    def needs_gpu(self) -> bool:
        """Return whether a step that is not finished goes into the GPU's queue."""
        self.take_finished()
        return any(self._lane(step) == "gpu" for step in self._open())

    def _lane(self, step: Step) -> str:
        return "gpu" if self._gpu and step.gpu else "cpu"

    def take_finished(self) -> None:
        """Take over from the journal what need not be done again."""
        for name in self._steps:
            self._take(name)

    def _take(self, name: str) -> bool:
        entry = self._journal.read(name)
        if entry and entry.digest == self._digest(name) and self._stands(name, entry):
            self.entries[name] = entry
            return True
        return False

    def _stands(self, name: str, entry: Entry) -> bool:
        """Return whether a journal's entry need not be done again. Failures are tried again."""
        if entry.status == "done":
            return (self._root / name).exists()
        return entry.status == "left out" and all(
            need in self.entries for need in self._steps[name].needs
        )

    def _digest(self, name: str) -> str | None:
        """Return a step's digest; None while what it depends on is not known.

        What looks at all steps depends on what became of them, too.
        """
        before = self._steps[name].after
        if not before:
            return self._digests[name]
        statuses = {}
        for other in before:
            entry = self.entries.get(other)
            if entry is None and other in self._wanted:
                return None
            statuses[other] = entry.status if entry else "not run"
        return digest([self._digests[name], statuses])

    def _open(self) -> list[Step]:
        return [
            step
            for name, step in self._steps.items()
            if name in self._wanted and name not in self.entries
        ]

    def _work(self, pool: Pool, workers: int) -> None:
        changed = True
        while self._open():
            if changed:
                self._give_out(pool, workers)
            changed = not self._running  # what was open has just been given up
            for worker, message in pool.wait(0.0 if changed else _WAIT):
                self._hear(worker, message)
                changed |= message is None or message["event"] == "end"

    def _give_out(self, pool: Pool, workers: int) -> None:
        ready = []
        for step in self._open():
            if step.name in self._running:
                continue
            needs = [self.entries.get(need) for need in step.needs]
            bad = [need for need in needs if need and need.status != "done"]
            if bad:
                self._give_up(step, bad[0])
            elif all(needs) and self._digest(step.name):
                # What looks at all steps may be finished now that all of these are known.
                if step.after and self._take(step.name):
                    self._tell(Event(None, "finished before", None, 1))
                else:
                    ready.append(step)
        ready.sort(key=lambda step: _URGENCY.get(step.kind, 3))
        for step in ready:
            for worker in pool.idle(self._lane(step)):
                self._start(step, worker, workers if len(ready) == 1 else 1)
                break
        self._warm(pool)

    def _warm(self, pool: Pool) -> None:
        """Let workers that would wait import what they will need."""
        for worker in pool.workers:
            if worker.step is None and not worker.warm:
                worker.warm = True
                kinds = {step.kind for step in self._open() if self._lane(step) == worker.lane}
                worker.give({"name": "", "kind": WARM, "kinds": sorted(kinds)})

    def _give_up(self, step: Step, because: Entry) -> None:
        status: Status = "left out" if because.status == "left out" else "blocked"
        entry = Entry(self._digest(step.name) or "", status, because.reason)
        self._end(step, entry, "given up")

    def _start(self, step: Step, worker: Worker, threads: int) -> None:
        mark = self._digest(step.name)
        assert mark is not None
        if step.after:
            self._tell_whole(self.entries)
        before = self._journal.read(step.name)
        # What another configuration, or a step that does not go on, left behind is of no use.
        if not (before and before.digest == mark and step.kind in _GOES_ON):
            shutil.rmtree(self._root / step.name, ignore_errors=True)
        self._journal.write(step.name, Entry(mark, "begun"))
        self._running.add(step.name)
        self._tries[step.name] += 1
        worker.give(
            {
                "name": step.name,
                "kind": step.kind,
                "inputs": dict(step.inputs),
                "settings": dict(step.settings),
                "threads": threads,
            }
        )
        self._tell(Event(step, "begin"))

    def _hear(self, worker: Worker, message: dict[str, Any] | None) -> None:
        name = worker.step
        if not name:  # it was only getting ready
            worker.step = None
            return
        step = self._steps[name]
        if message is None:
            self._running.discard(name)
            if self._tries[name] >= _TRIES:
                reason = f"its process ended {_TRIES} times without a word (see {worker.log.name})"
                self._end(step, Entry(self._digest(name) or "", "failed", reason))
        elif message["event"] == "progress":
            self._tell(Event(step, message["what"], None, message["done"], message["total"]))
        else:
            worker.step = None
            self._running.discard(name)
            entry = Entry(
                self._digest(name) or "",
                message["status"],
                message["reason"],
                message["seconds"],
                message["cpu_seconds"],
                message["reused"],
            )
            self._own[worker.process.pid] = message["own_cpu_seconds"]
            self._end(step, entry)
            if message.get("fatal"):
                raise OutOfSpace(str(message["reason"]))

    def _end(self, step: Step, entry: Entry, what: str = "end") -> None:
        self.entries[step.name] = entry
        self._journal.write(step.name, entry)
        self._tell(Event(step, what, entry))


def finished_steps(plan: Plan, root: Path) -> set[str]:
    """Return the names of the steps that need not be done again."""
    scheduler = Scheduler(plan, root.resolve(), set(plan.steps), lambda event: None)
    scheduler.take_finished()
    return set(scheduler.entries)


def wait_for_workers(root: Path, seconds: float = _PATIENCE) -> None:
    """Wait until the workers of a study that was killed have ended: no time, as a rule.

    Raises:
        SettingsError: they are still there after `seconds`.
    """
    began = time.monotonic()
    with (root / WORKERS_LOCK).open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() - began > seconds:
                    raise SettingsError(
                        f"Processes of an earlier study are still at work in {root}. Wait, or end "
                        "them."
                    ) from None
                time.sleep(0.05)
