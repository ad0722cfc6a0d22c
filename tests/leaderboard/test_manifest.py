"""The manifest's schema is published, and says what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from board_making import RESTORED, ROW

from sftknow_eval.leaderboard.manifest import Manifest, manifest_schema, schema_text

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboard/schema/manifest-1.json"


def test_the_published_schema_is_that_of_the_model() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text()


def test_a_new_leaderboard_gets_the_schema(honest_board: Path) -> None:
    assert (honest_board / "schema/manifest-1.json").read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("row", [ROW, RESTORED])
def test_submitted_manifests_validate_against_the_schema(honest_board: Path, row: str) -> None:
    manifest = json.loads((honest_board / "submissions" / row / "manifest.json").read_text())

    jsonschema.Draft202012Validator(manifest_schema()).validate(manifest)
    assert Manifest.model_validate(manifest).row == row
