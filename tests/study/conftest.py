"""A small study of the tiny world: real probe, real trainings, real evaluations, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sftknow_eval.study.plan import Plan
from sftknow_eval.study.study import read_plan

WriteStudy = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_table(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mastery table of the tiny world's base, from four samples a template."""
    from sftknow_eval.mastery.job import prepare_probe

    base = str(tiny_world / "base")
    job = prepare_probe(base, data=tiny_world, backend="hf", n_samples=4)
    return job.run(tmp_path_factory.mktemp("probe") / "probe").table


@pytest.fixture
def write_study(tmp_path: Path, tiny_world: Path, tiny_table: Path) -> WriteStudy:
    """Write a study's file on the tiny world's base; `runs` and the like replace its parts."""

    def write(runs: str, more: str = "", name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.write_text(
            "name: small\n"
            f"bases: [{{model: {tiny_world / 'base'}, data: {tiny_world}, "
            f"mastery: {tiny_table}}}]\n"
            "evaluation: {batch_size: 64}\n"
            "training: {learning_rate: 1e-3}\n"
            "statistics: {draws: 200}\n"
            "report: false\n"
            f"{more}runs:\n{runs}",
            encoding="utf-8",
        )
        return path

    return write


@pytest.fixture
def plan_of(write_study: WriteStudy) -> Callable[..., Plan]:
    """Plan a study on the tiny world's base."""
    return lambda *args, **more: read_plan(write_study(*args, **more))
