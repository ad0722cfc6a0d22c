"""One honest leaderboard for all tests here, made once and copied by those that change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from board_making import World


@pytest.fixture(scope="session")
def board_world(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> World:
    """A base with random weights, a data set of its own and a mastery table."""
    return World.make(tmp_path_factory.mktemp("board"), random_model)


@pytest.fixture(scope="session")
def honest_board(board_world: World) -> Path:
    """A leaderboard of four rows: two strategies told apart, a restoration, a random control."""
    root = board_world.folder / "leaderboard"
    weak = [board_world.results("weak", seed) for seed in range(3)]
    strong = (0.1, 0.9, 0.9, 1.0, 1.0)
    better = [board_world.results("better", seed, shares=strong) for seed in range(3)]
    board_world.submit_row(root, weak)
    board_world.submit_row(root, better, run="better")
    for strategy, order in (("restoration", "top"), ("random_restoration", "random")):
        folders = [
            board_world.results(
                strategy,
                seed,
                model=board_world.folder / "models" / f"weak-{seed}",
                engine_args={
                    "base": str(board_world.base),
                    "ratio": 20.0,
                    "order": order,
                    "order_seed": 0,
                    "region": "transformer",
                },
            )
            for seed in range(3)
        ]
        board_world.submit_row(root, folders, strategy=strategy)
    return root


@pytest.fixture
def board_copy(honest_board: Path, tmp_path: Path) -> Path:
    """A copy of the honest leaderboard to be changed."""
    root = tmp_path / "leaderboard"
    shutil.copytree(honest_board, root)
    return root
