"""Building a site of 1,000 rows: CPU time, the size of its pages, and a rebuild with one row more.

    python benchmarks/board_build.py --base MODEL [--rows 1000] [--facts 2000] [--keep DIR]

MODEL is any small model folder, such as the base of `sftknow world --size tiny`. Rows are made by
`board_rows.py`. The times hold verifying, ranking, rendering and writing. Everything is measured
twice: inside one process, and as `sftknow board build` in a new process each time, Python's start
and all imports included, as a user or a CI job runs it. Exits with code 1 above 60 CPU-seconds,
1.5 MB for the first page or a board's page, or 5% for one row more in either way.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from board_rows import add_rows, first_row

from sftknow_eval.leaderboard.site.build import build

MOST_CPU_SECONDS = 60.0
MOST_BYTES = 1_500_000
MOST_SHARE = 0.05
_COMMAND = "from sftknow_eval.cli.app import main; main()"
# An installed package has its bytecode on the disk; that of a checkout is written by its first use.
_WITHOUT = "PYTHONDONTWRITEBYTECODE"

Timed = Callable[[Path, Path], float]


def in_this_process(root: Path, site: Path) -> float:
    """Return the CPU-seconds of a build."""
    start = time.process_time()
    build(root, site)
    return time.process_time() - start


def in_a_new_process(root: Path, site: Path) -> float:
    """Return the CPU-seconds of the command that builds, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["board", "build", "--root", str(root), "--out", str(site)]
    environment = {name: value for name, value in os.environ.items() if name != _WITHOUT}
    command = [sys.executable, "-c", _COMMAND, *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def full_and_again(root: Path, site: Path, last: Path, timed: Timed) -> tuple[float, float]:
    """Return the CPU-seconds of a build without the last row, and of one more with it."""
    away = site.with_name("last-row")
    shutil.move(last, away)
    full = timed(root, site)
    shutil.move(away, last)
    return full, timed(root, site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="any small model folder")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--facts", type=int, default=2_000)
    parser.add_argument("--keep", type=Path, help="folder for rows and sites, else a temporary one")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        first = first_row(folder, options.base, options.facts)
        last = add_rows(first, range(options.rows - 1))[-1]
        root = first.parents[4]
        for name, timed in (("one", in_this_process), ("new", in_a_new_process)):
            site = folder / f"site-{name}"
            full, again = full_and_again(root, site, last, timed)
            good &= full <= MOST_CPU_SECONDS and again <= MOST_SHARE * full
            print(
                f"in {name} process: {options.rows - 1} rows {full:.1f} CPU-s, one row more "
                f"{again:.2f} CPU-s ({again / full:.1%})",
                flush=True,
            )
        index = (site / "index.html").stat().st_size
        board = max(path.stat().st_size for path in (site / "boards").glob("*.html"))
    print(f"first page {index / 1e6:.2f} MB, largest board's page {board / 1e6:.2f} MB")
    sys.exit(0 if good and max(index, board) <= MOST_BYTES else 1)


if __name__ == "__main__":
    main()
