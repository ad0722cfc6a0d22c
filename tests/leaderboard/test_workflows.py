"""The workflows of a submission repository; what is expected follows from docs/leaderboard.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sftknow_eval import __version__
from sftknow_eval.leaderboard.workflows import NAMES, install, workflow_text


@pytest.mark.parametrize("name", NAMES)
def test_workflows_are_yaml_and_install_this_version(name: str) -> None:
    value = yaml.safe_load(workflow_text(name))

    assert value["env"]["VERIFIER"] == f"sftknow-eval=={__version__}"
    assert value["permissions"] == {"contents": "read"}


def test_pull_requests_get_no_secrets_and_run_nothing_of_their_own() -> None:
    text = workflow_text("verify-submissions.yml")
    value = yaml.safe_load(text)

    assert list(value[True]) == ["pull_request"]  # YAML 1.1 reads `on` as true
    assert "secrets." not in text
    assert "permissions" not in value["jobs"]["verify"]
    for step in value["jobs"]["verify"]["steps"]:
        # What a stranger chose goes through the environment, never into a script.
        assert "${{" not in step.get("run", "")
        assert "pip install ." not in step.get("run", "")
    assert value["jobs"]["verify"]["steps"][0]["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_by_commit(name: str) -> None:
    used = re.findall(r"uses: (\S+)", workflow_text(name))

    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)


def test_workflows_are_installed_where_github_looks(tmp_path: Path) -> None:
    written = install(tmp_path)

    assert [path.relative_to(tmp_path).parent for path in written] == [
        Path(".github/workflows")
    ] * 2
    assert all("@VERSION@" not in path.read_text() for path in written)
