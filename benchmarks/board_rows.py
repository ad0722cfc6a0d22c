"""Generated leaderboards: rows of models that were never asked, for measuring speed and size.

    python benchmarks/board_rows.py --base MODEL --rows 1000 --facts 2000 --out DIR

Every row has three seeds with the evidence of real rows: outputs, verdicts, digests. Only the
answers are drawn, and title, run and declaration of each row say so. MODEL is any small model
folder, such as the base of `sftknow world --size tiny`; nothing of it is run.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "leaderboard"))

import board_making

from sftknow_eval.artifacts import write_json
from sftknow_eval.leaderboard.base_store import BaseStore, load_base
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.evidence import (
    Evidence,
    evidence_path,
    read_evidence,
    write_evidence,
)
from sftknow_eval.leaderboard.manifest import Manifest, SeedRun
from sftknow_eval.leaderboard.recount import seed_counts

RELATIONS = 3
BASE_SHARES = np.array([0.05, 0.3, 0.55, 0.75, 0.9])


def first_row(out: Path, base: Path, facts: int) -> Path:
    """Make the base's store and one row by `sftknow board submit`; return the row's folder."""
    board_making.SUBJECTS = -(-facts // RELATIONS)
    world = board_making.World.make(out / "world", base)
    folders = [world.results("generated", seed) for seed in range(3)]
    return world.submit_row(out / "leaderboard", folders, run="generated")


def add_rows(first: Path, rows: range) -> list[Path]:
    """Write rows beside the first one; their answers are drawn, their files are real."""
    root = first.parents[4]
    manifest = Manifest.model_validate_json((first / "manifest.json").read_text("utf-8"))
    store = load_base(root / "mastery" / manifest.base.id)
    evidence = [read_evidence(first, run.seed) for run in manifest.seeds]
    return [_row(first, manifest, store, evidence, number) for number in rows]


def _row(
    first: Path, manifest: Manifest, store: BaseStore, evidence: list[Evidence], number: int
) -> Path:
    folder = first.with_name(f"generated-{number:04d}")
    rng = np.random.default_rng([7, number])
    shares = np.clip(BASE_SHARES + rng.normal(0, 0.12) + rng.normal(0, 0.03, 5), 0.01, 0.99)
    runs = [
        _seed(folder, run, store, held, rng, shares)
        for run, held in zip(manifest.seeds, evidence, strict=True)
    ]
    if (first / "training").is_dir():
        shutil.copytree(first / "training", folder / "training")
    made = manifest.model_copy(
        update={
            **{"run": folder.name, "title": f"generated row {number}", "seeds": tuple(runs)},
            "summary": "Generated to measure speed and size. No model was asked.",
        }
    )
    write_json(folder / "manifest.json", made.model_dump(mode="json"))
    return folder


def _seed(
    folder: Path,
    run: SeedRun,
    store: BaseStore,
    held: Evidence,
    rng: np.random.Generator,
    shares: np.ndarray,
) -> SeedRun:
    correct = rng.random(len(store.ids)) < shares[store.strata]
    numbers = rng.integers(1_000_000, size=len(correct)).tolist()
    outputs = [
        f" {answer} </s>" if right else f" nowhere, {wrong} </s>"
        for answer, right, wrong in zip(store.answers, correct.tolist(), numbers, strict=True)
    ]
    weights = sha256(f"{folder.name} {run.seed}".encode())
    said = {**held.identity, "weights": weights}
    made = dataclasses.replace(held, outputs=outputs, correct=correct, identity=said)
    digest = write_evidence(evidence_path(folder, run.seed), made)
    return run.model_copy(
        update={
            "evidence": digest,
            "outputs": made.outputs_digest(),
            "weights": run.weights.model_copy(update={"fingerprint": weights, "files": ()}),
            "counts": seed_counts(store, store.positions(), correct, made.kl),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="any small model folder")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--facts", type=int, default=2_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    first = first_row(options.out, options.base, options.facts)
    add_rows(first, range(options.rows - 1))
    print(f"{options.rows} rows below {options.out / 'leaderboard'}")


if __name__ == "__main__":
    main()
