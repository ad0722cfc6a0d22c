"""A study that is killed, at any moment, ends with the numbers of an undisturbed one.

Real processes and SIGKILL. `SFTKNOW_KILLS=10` is the full version.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.models import weight_fingerprint

# A probe, two trainings, a sweep, a restoration, evaluations and the comparison.
RUNS = """\
  - strategy: sft_divided
    strata: [0, 4]
    n: [8]
    settings: {epochs: 4}
    sweep: {ratios: [0, 5, 20, 60], strata: [4]}
    weights: {}
  - {strategy: restoration, strata: [4], n: [8]}
  - {strategy: base_again}
"""
_PATIENCE = 120.0


@pytest.fixture
def config(write_study: Callable[..., Path], tiny_world: Path, tmp_path: Path) -> Path:
    """The study, with a probe of its own in place of the finished table."""
    path = write_study(RUNS, "probe: {backend: hf, n_samples: 4}\n")
    head, _, rest = path.read_text().partition(", mastery: ")
    path.write_text(head + "}]" + rest.partition("}]")[2])
    return path


def start(config: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SFTKNOW_CACHE": str(cache)}
    command = [sys.executable, "-m", "sftknow_eval", "study", str(config), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def children(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def finished_steps(out: Path) -> int:
    found = 0
    for path in (out / "steps").glob("*.json"):
        found += json.loads(path.read_text())["status"] == "done"
    return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() - began < _PATIENCE
        time.sleep(0.002)


def numbers(out: Path) -> dict[str, Any]:
    """All that a study found out, apart from what things took and where they lie."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("facts.parquet")):
        found[str(path.relative_to(out))] = path.read_bytes()
    for path in sorted(out.rglob("model.safetensors")):
        found[str(path.relative_to(out))] = weight_fingerprint(path.parent)
    found["mastery"] = (out / "probe" / "mastery.parquet").read_bytes()
    found["comparison"] = json.loads((out / "statistics" / "comparison.json").read_text())
    for path in sorted(out.rglob("change.json")):
        found[str(path.relative_to(out))] = json.loads(path.read_text())
    index = json.loads((out / "study.json").read_text())
    for run in index["runs"]:
        run.pop("cpu_seconds")
    found["runs"] = index["runs"]
    assert index["finished"]
    return found


@pytest.mark.timeout(1800)
def test_a_killed_study_ends_in_the_numbers_of_an_undisturbed_one(
    config: Path, tmp_path: Path
) -> None:
    kills = int(os.environ.get("SFTKNOW_KILLS", "2"))
    draw = random.Random(1)
    undisturbed, killed = tmp_path / "one" / "out", tmp_path / "two" / "out"
    process = start(config, undisturbed, tmp_path / "one" / "cache")
    assert process.wait() == 0
    steps = finished_steps(undisturbed)
    # Every kill comes later in the study than the one before, spread over all of it.
    moments = [number * steps // kills for number in range(kills)]
    for number, moment in enumerate(moments):
        process = start(config, killed, tmp_path / "two" / "cache")
        wait_for(lambda moment=moment: finished_steps(killed) >= moment, process)
        time.sleep(draw.random() * 1.5)
        workers = children(process)
        if number % 3 == 2 and workers:  # a worker: the study itself goes on
            os.kill(draw.choice(workers), signal.SIGKILL)
            time.sleep(0.5)
            workers = children(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 5
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_alive, workers)), "a worker outlived the study"
    process = start(config, killed, tmp_path / "two" / "cache")
    assert process.wait() == 0
    assert numbers(killed) == numbers(undisturbed)


def test_a_worker_that_dies_is_replaced(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(config, out, tmp_path / "cache")
    wait_for(lambda: finished_steps(out) >= 1, process)
    victims = children(process)
    os.kill(victims[0], signal.SIGKILL)
    assert process.wait() == 0
    assert not any(map(is_alive, victims))
    assert json.loads((out / "study.json").read_text())["finished"]
