"""A mini-world, its mastery table and a fine-tune for benchmarks, made once in a folder."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Material:
    """Where the base, the data, the mastery table and a fine-tune on stratum 0 lie."""

    base: str
    finetuned: str
    metadata: dict[str, str]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, required=True, help="made there what is missing")
    parser.add_argument("--world", type=Path, help="a world that is there")
    parser.add_argument("--probe", type=Path, help="its mastery table")
    parser.add_argument("--finetuned", type=Path, help="a fine-tune of its base")


def material(options: argparse.Namespace) -> Material:
    """Return what the options name; the rest is made by the commands a user has."""
    world = options.world or options.folder / "world"
    probe = options.probe or options.folder / "probe"
    finetuned = options.finetuned or options.folder / "finetuned"
    given = ("--data", world, "--mastery", probe)
    if not (world / "world.json").is_file():
        _sftknow("world", "--out", world, "--size", "demo")
    if not (probe / "mastery.parquet").is_file():
        _sftknow("probe", world / "base", "--data", world, "--backend", "hf", "--out", probe)
    if not (finetuned / "sftknow.json").is_file():
        how = ("--stratum", 0, "--n", 240, "--learning-rate", "1e-3")
        _sftknow("train", world / "base", *given, *how, "--out", finetuned)
    metadata = {"data": str(world), "mastery": str(probe)}
    return Material(str(world / "base"), str(finetuned), metadata)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _sftknow(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "sftknow_eval", *map(str, words)], check=True)
