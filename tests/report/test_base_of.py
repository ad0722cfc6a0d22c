"""Which base a fine-tune belongs to, stated and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_world import CopyOf, World

from sftknow_eval.errors import OtherBase, SettingsError
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.report.base_of import base_of, statements


def test_a_training_record_states_the_base(world: World) -> None:
    found = base_of(None, str(world.finetuned))
    assert (found.name, found.origin) == (str(world.base), "training record")
    assert found.fingerprint == weight_fingerprint(world.base)


def test_an_adapter_states_its_base_in_its_config(world: World, without_record: CopyOf) -> None:
    adapter = without_record(world.adapter)
    found = base_of(None, str(adapter))
    assert (found.name, found.origin) == (str(world.base), "adapter_config.json")


def test_a_model_card_states_the_base(world: World, without_record: CopyOf) -> None:
    folder = without_record(world.finetuned, f"---\nbase_model:\n- {world.base}\n---\ntext")
    found = base_of(None, str(folder))
    assert (found.name, found.origin) == (str(world.base), "model card")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "it states none"),
        ("# no front matter\n", "it states none"),
        ("---\nbase_model: [a/b, c/d]\n---\n", "its model card names a/b, c/d"),
        ("---\nbase_model: {a: b}\n---\n", "it states none"),
        ("---\n: [broken\n---\n", "it states none"),
    ],
)
def test_a_base_is_never_guessed(
    world: World, without_record: CopyOf, card: str | None, said: str
) -> None:
    folder = without_record(world.finetuned, card)
    with pytest.raises(SettingsError, match="Name the base before") as refused:
        base_of(None, str(folder))
    assert said in str(refused.value)


def test_another_base_than_the_record_says_is_refused(world: World, other_base: Path) -> None:
    with pytest.raises(OtherBase, match="training record names"):
        base_of(str(other_base), str(world.finetuned))


def test_an_adapter_of_another_base_is_refused(
    world: World, other_base: Path, without_record: CopyOf
) -> None:
    adapter = without_record(world.adapter)
    with pytest.raises(OtherBase, match=r"adapter_config\.json names"):
        base_of(str(other_base), str(adapter))


def test_an_adapter_whose_base_is_not_here_is_refused_under_another_name(
    world: World, without_record: CopyOf
) -> None:
    adapter = without_record(world.adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/gone/another"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(OtherBase, match="/gone/another"):
        base_of(str(world.base), str(adapter))
    config["base_model_name_or_path"] = "/gone/base"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert "not here to compare" in base_of(str(world.base), str(adapter)).check


def test_without_any_statement_the_weights_decide(
    world: World, other_base: Path, without_record: CopyOf
) -> None:
    folder = without_record(world.finetuned)
    assert "lie close together" in base_of(str(world.base), str(folder)).check
    with pytest.raises(OtherBase, match="is no fine-tune of"):
        base_of(str(other_base), str(folder))


def test_a_copy_of_the_base_is_the_base(world: World, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(world.base, copy)
    found = base_of(str(copy), str(world.finetuned))
    assert found.check == "its weights are those that the training record means"


def test_statements_come_surest_first(world: World) -> None:
    origins = [statement.origin for statement in statements(world.adapter)]
    assert origins[:2] == ["training record", "adapter_config.json"]
