"""What the tasks read from lm-eval's merged metadata, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.settings import read_settings


def test_model_arguments_that_are_not_ours_pass() -> None:
    settings = read_settings(
        {"pretrained": "org/model", "dtype": "float32", "revision": "main", "seed": 1}
    )
    assert (settings.split, settings.style, settings.model) == ("test", None, "org/model")
    assert settings.tokenizer == "org/model"


def test_a_misspelt_name_is_noticed() -> None:
    with pytest.raises(SettingsError, match=r"'splt'.*did you mean 'split'"):
        read_settings({"pretrained": "m", "splt": "dev"})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"split": "validation"}, "split is 'validation'; known are train, dev, test"),
        ({"split": 3}, "'split' is 3; a text was expected"),
        ({"style": "haiku"}, "'haiku' is unknown"),
        ({"relations": 17}, "relations is 17; a list of ids"),
    ],
)
def test_wrong_values_name_what_was_expected(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(metadata)


def test_relations_as_text_or_list() -> None:
    assert read_settings({"relations": "P17, P19"}).relations == ("P17", "P19")
    assert read_settings({"relations": ["P17"]}).relations == ("P17",)


def test_metadata_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTKNOW_MASTERY", "/from/environment")
    monkeypatch.setenv("SFTKNOW_DATA", "/data/environment")
    assert read_settings({}).mastery == "/from/environment"
    settings = read_settings({"mastery": "/named", "data": "/data/named"})
    assert (settings.mastery, settings.data) == ("/named", "/data/named")


def test_a_training_record_states_base_style_and_data(tuned: Path, tiny_world: Path) -> None:
    settings = read_settings({"pretrained": str(tuned)})
    assert settings.style == "paper"
    assert settings.base == str(tiny_world / "base")
    assert settings.data == str(tiny_world)
    assert settings.base_fingerprint is not None
    assert read_settings({"pretrained": str(tuned), "style": "plain"}).style == "plain"


def test_a_changed_file_makes_other_settings(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("P17-test-0001\n")
    before = read_settings({"facts": str(ids)})
    ids.write_text("P17-test-0001\nP17-test-0002\n")
    assert read_settings({"facts": str(ids)}) != before
