"""The house holds: imports run one way, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sftknow_eval"
HEAVY = ("torch", "transformers", "vllm", "ray", "trl", "lm_eval", "datasets", "pyarrow", "numba")

# Each floor may import the floors before it; rooms on one floor do not import each other,
# except where `ALSO` says so: restoration uses drift's relative change, and what is asked during
# a training is asked and judged as in evaluation.
FLOORS: list[set[str]] = [
    {"errors"},
    {"artifacts"},
    {"config_faults", "decoding", "models", "prompts", "record", "vllm_support"},
    {"mastery", "drift", "restoration"},
    {"training", "evaluation", "world"},
    {"sweep", "pages"},
    {"report", "leaderboard"},
    {"study"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
ALSO = {("restoration", "drift"), ("training", "evaluation")}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sftknow_eval" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


def _floor(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"the room '{room}' has no floor in this test's list")


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_run_one_way(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not _imported_rooms(path)
        return
    for other in _imported_rooms(path) - {room, "__version__"}:
        allowed = _floor(other) < _floor(room) or (room, other) in ALSO
        assert allowed, f"{path} in '{room}' imports '{other}'"


@pytest.mark.parametrize("statement", ["import sftknow_eval", "HELP"])
def test_help_imports_nothing_heavy(statement: str) -> None:
    if statement == "HELP":
        statement = (
            "import sys; sys.argv = ['sftknow', '--help']\n"
            "from sftknow_eval.cli.app import main\n"
            "try: main()\n"
            "except SystemExit: pass"
        )
    check = f"{statement}\nimport sys; print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
