"""What a study costs beside its models, and what a finished one costs again.

    python benchmarks/study.py --config configs/demo.yaml [--out FOLDER]

Runs the study from nothing, with a cache of its own, then once more. Its own work is everything
that is not in a step that trains, asks models or passes over weights: imports, scheduling,
statistics, report and board, as `study.json` counts them. Exits with code 1 when it is above 5% of
all CPU time, or the second run above 2% of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MOST_OWN_SHARE = 0.05
MOST_AGAIN = 0.02


def run(config: Path, out: Path, cache: Path) -> tuple[float, float]:
    """Run the study; return CPU and wall seconds of all its processes."""
    environment = {**os.environ, "SFTKNOW_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sftknow_eval", "study", str(config), "--out", str(out)]
    before, began = _children_seconds(), time.monotonic()
    subprocess.run(command, env=environment, check=True)
    return _children_seconds() - before, time.monotonic() - began


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(costs: dict[str, Any]) -> None:
    for kind, entry in sorted(costs["kinds"].items(), key=lambda item: -item[1]["cpu_seconds"]):
        each = entry["cpu_seconds"] / entry["steps"]
        print(f"  {kind:<20} {entry['steps']:>4.0f} x {each:>6.2f} = {entry['cpu_seconds']:>7.1f}")
    for what, seconds in costs["study"].items():
        print(f"  {what:<20} {'':>15}{seconds:>7.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--out", type=Path, help="an empty folder; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or Path(scratch) / "out"
        first, wall = run(arguments.config, out, Path(scratch) / "cache")
        costs = json.loads((out / "study.json").read_text())["costs"]
        again, _ = run(arguments.config, out, Path(scratch) / "cache")
    print("CPU seconds by kind of step")
    show(costs)
    print(f"first run    {first:>8.1f} CPU-s in {wall:.0f} s")
    print(f"own share    {costs['own_share']:>8.1%}  (at most {MOST_OWN_SHARE:.0%})")
    print(f"second run   {again / first:>8.2%}  of the first (at most {MOST_AGAIN:.0%})")
    return int(costs["own_share"] > MOST_OWN_SHARE or again / first > MOST_AGAIN)


if __name__ == "__main__":
    sys.exit(main())
