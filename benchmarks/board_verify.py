"""Rows verified in a CPU-second: rows of 2,000 facts, three seeds each, judged from their texts.

    python benchmarks/board_verify.py --base MODEL

The rows are generated (see board_rows.py). The base's store is loaded once for all rows, as in any
verification; start-up of Python is not counted. Exits with code 1 below 50 rows a CPU-second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import board_rows

from sftknow_eval.leaderboard.verify import verify

LEAST_A_SECOND = 50.0
ROUNDS = 3


def rows_a_second(root: Path) -> float:
    """Return how many rows are verified in a CPU-second, the best of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        verdicts = verify(root)
        seconds.append(time.process_time() - begin)
        assert not any(verdict.reasons for verdict in verdicts)
    return len(verdicts) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="any small model folder")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--facts", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first = board_rows.first_row(Path(scratch), options.base, options.facts)
        board_rows.add_rows(first, range(options.rows - 1))
        found = rows_a_second(first.parents[4])
    print(f"{options.rows} rows of {options.facts} facts: {found:.0f} rows a CPU-second")
    sys.exit(found < LEAST_A_SECOND)


if __name__ == "__main__":
    main()
