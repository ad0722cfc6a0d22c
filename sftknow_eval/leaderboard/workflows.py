"""The GitHub Actions workflows of a submission repository, shipped with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sftknow_eval import __version__
from sftknow_eval.artifacts import atomic_path

NAMES = ("verify-submissions.yml", "publish-board.yml")


def workflow_text(name: str) -> str:
    """Return a workflow that installs this version of the package."""
    source = files("sftknow_eval.leaderboard") / "workflow_files" / name
    return source.read_text(encoding="utf-8").replace("@VERSION@", __version__)


def install(top: Path) -> list[Path]:
    """Write the workflows into `.github/workflows/` below a repository's top folder."""
    written = []
    for name in NAMES:
        path = top / ".github" / "workflows" / name
        with atomic_path(path) as partial:
            partial.write_text(workflow_text(name), encoding="utf-8")
        written.append(path)
    return written
