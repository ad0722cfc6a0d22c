"""Building a site of 1,000 rows: CPU time, the size of its pages, and a rebuild with one row more.

    python benchmarks/board_build.py --base MODEL [--rows 1000] [--facts 2000] [--keep DIR]

MODEL is any small model folder, such as the base of `sftknow world --size tiny`. Rows are made by
`board_rows.py`. The times hold verifying, ranking, rendering and writing. Exits with code 1 above
60 CPU-seconds, 1.5 MB for the first page or a board's page, or 5% for one row more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from board_rows import add_rows, first_row

from sftknow_eval.leaderboard.site.build import Built, build

MOST_CPU_SECONDS = 60.0
MOST_BYTES = 1_500_000
MOST_SHARE = 0.05


def timed(root: Path, site: Path) -> tuple[float, Built]:
    start = time.process_time()
    built = build(root, site)
    return time.process_time() - start, built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="any small model folder")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--facts", type=int, default=2_000)
    parser.add_argument("--keep", type=Path, help="folder for rows and site, else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        first = first_row(folder, options.base, options.facts)
        add_rows(first, range(options.rows - 2))
        root, site = first.parents[4], folder / "site"
        full, built = timed(root, site)
        add_rows(first, range(options.rows - 2, options.rows - 1))
        again, rebuilt = timed(root, site)
        index = (site / "index.html").stat().st_size
        board = max(path.stat().st_size for path in (site / "boards").glob("*.html"))
    print(f"full build of {options.rows - 1} rows: {full:.1f} CPU-s, {built.written} files")
    print(
        f"one row more: {again:.2f} CPU-s ({again / full:.1%}), {rebuilt.written} files made, "
        f"{rebuilt.kept} kept"
    )
    print(f"first page {index / 1e6:.2f} MB, largest board's page {board / 1e6:.2f} MB")
    good = full <= MOST_CPU_SECONDS and again <= MOST_SHARE * full
    sys.exit(0 if good and max(index, board) <= MOST_BYTES else 1)


if __name__ == "__main__":
    main()
