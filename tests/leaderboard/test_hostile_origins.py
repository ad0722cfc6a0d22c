"""Hostile submissions, of another base, recipe or row: each is refused with its reason.

Expected reasons are written down here from the rules in docs/leaderboard.md.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_making import OTHER, RANDOM, RESTORED, ROW
from forging import (
    copied_row,
    edit,
    forge_evidence,
    reasons_for,
    replaced,
    row_folder,
    set_in,
)

from sftknow_eval.leaderboard.evidence import Evidence
from sftknow_eval.leaderboard.verify import verify


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("base.fingerprint", "fingerprint differ"),
        ("base.mastery", "mastery differ"),
        ("base.facts", "facts differ"),
        ("base.name", "name differ"),
        ("asking.documents", "asked other facts"),
    ],
)
def test_a_row_of_another_base_is_refused(board_copy: Path, place: str, why: str) -> None:
    value = "another base" if place == "base.name" else "a" * 64
    set_in(row_folder(board_copy), place, value)

    assert why in reasons_for(board_copy)


def test_evidence_of_another_base_is_refused(board_copy: Path) -> None:
    forge_evidence(
        row_folder(board_copy),
        lambda e: replaced(e, identity={**e.identity, "base": "b" * 64}),
    )

    assert "belongs to another base" in reasons_for(board_copy)


def test_a_base_that_is_not_here_is_refused(board_copy: Path) -> None:
    folder = board_copy / "submissions/1/nobody/sft_divided/s0-n24"
    shutil.copytree(row_folder(board_copy), folder)
    set_in(folder, "base.id", "nobody")

    assert "no base 'nobody'" in reasons_for(board_copy, "1/nobody/sft_divided/s0-n24")


def test_the_base_itself_is_no_row(board_copy: Path) -> None:
    folder = row_folder(board_copy)
    fingerprint: list[str] = []
    edit(folder, lambda m: fingerprint.append(m["base"]["fingerprint"]))
    set_in(folder, "seeds.0.weights.fingerprint", fingerprint[0])

    assert "weights are the base's own" in reasons_for(board_copy)


def test_a_replayed_recipe_is_refused(board_copy: Path) -> None:
    recipes = row_folder(board_copy, RESTORED) / "recipes"
    shutil.copyfile(recipes / "seed-1.json", recipes / "seed-0.json")

    def repair(manifest: dict[str, Any]) -> None:
        manifest["seeds"][0]["recipe"] = manifest["seeds"][1]["recipe"]

    edit(row_folder(board_copy, RESTORED), repair)

    reasons = reasons_for(board_copy, RESTORED)

    assert "it was made for another fine-tune" in reasons
    assert "belongs to another recipe" in reasons


def test_a_replayed_recipe_is_refused_although_its_checksum_is_claimed(board_copy: Path) -> None:
    recipes = row_folder(board_copy, RESTORED) / "recipes"
    shutil.copyfile(recipes / "seed-1.json", recipes / "seed-0.json")
    digest: list[str] = []

    def repair(manifest: dict[str, Any]) -> None:
        first, second = manifest["seeds"][:2]
        first["recipe"] = second["recipe"]
        first["weights"]["checksum"] = second["weights"]["checksum"]
        digest.append(second["recipe"]["digest"])

    edit(row_folder(board_copy, RESTORED), repair)
    forge_evidence(
        row_folder(board_copy, RESTORED),
        lambda e: replaced(e, identity={**e.identity, "recipe": digest[0]}),
    )

    reasons = reasons_for(board_copy, RESTORED)

    assert "recipe was made for the weights of another row" in reasons


def test_a_recipe_that_does_not_add_up_is_refused(board_copy: Path) -> None:
    import json

    from sftknow_eval.leaderboard.contained import sha256

    folder = row_folder(board_copy, RESTORED)
    path = folder / "recipes/seed-0.json"
    recipe = json.loads(path.read_text())
    recipe["restored"] = recipe["elements"]
    path.write_text(json.dumps(recipe))
    set_in(folder, "seeds.0.recipe.sha256", sha256(path.read_bytes()))

    reasons = reasons_for(board_copy, RESTORED)

    assert "do not add up" in reasons
    assert "does not do what the manifest says" in reasons


def test_a_restoration_cannot_pose_as_a_random_control(board_copy: Path) -> None:
    set_in(row_folder(board_copy, RESTORED), "control", "random_restoration")

    assert "random" in reasons_for(board_copy, RESTORED)


def test_a_random_control_cannot_pose_as_a_row(board_copy: Path) -> None:
    set_in(row_folder(board_copy, RANDOM), "control", None)

    assert "random" in reasons_for(board_copy, RANDOM)


@pytest.mark.parametrize("later", ["2199-01-01", "2000-01-01"])
def test_a_row_under_another_name_is_refused_whoever_claims_to_be_first(
    board_copy: Path, later: str
) -> None:
    folder = copied_row(board_copy, "my-own")
    edit(folder, lambda m: m.update(created=later, contact="eve@example.org"))

    verdicts = verify(folder)

    assert "its weights and recipe are those of seed 0" in "; ".join(verdicts[0].reasons)
    assert "its outputs are those of seed 0" in "; ".join(verdicts[0].reasons)


def test_a_row_with_other_weights_but_the_same_outputs_is_refused(board_copy: Path) -> None:
    folder = copied_row(board_copy, "my-own")
    edit(folder, lambda m: m.update(created="2199-01-01"))
    for seed in range(3):
        mark = f"{seed}" * 64
        set_in(folder, f"seeds.{seed}.weights.fingerprint", mark)

        def change(e: Evidence, mark: str = mark) -> Evidence:
            return replaced(e, identity={**e.identity, "weights": mark})

        forge_evidence(folder, change, seed)

    reasons = reasons_for(board_copy, "1/the-base/sft_divided/my-own")

    assert f"its outputs are those of seed 0 of '{ROW}'" in reasons


def test_naming_the_original_does_not_help_a_stranger(board_copy: Path) -> None:
    folder = copied_row(board_copy, "my-own")
    edit(folder, lambda m: m.update(created="2199-01-01", contact="eve@example.org"))
    for seed in range(3):
        set_in(folder, f"seeds.{seed}.same_as", {"row": ROW, "seed": seed})

    assert "its outputs are those of" in reasons_for(board_copy, "1/the-base/sft_divided/my-own")


def test_a_false_origin_is_refused(board_copy: Path) -> None:
    set_in(row_folder(board_copy), "seeds.0.same_as", {"row": OTHER, "seed": 0})

    assert "declared to give the outputs of seed 0" in reasons_for(board_copy)


def test_one_seed_submitted_three_times_is_refused(board_copy: Path) -> None:
    folder = row_folder(board_copy)
    for seed in (1, 2):
        for name in ("evidence/seed-{}.parquet", "training/seed-{}.jsonl"):
            shutil.copyfile(folder / name.format(0), folder / name.format(seed))

        def repair(manifest: dict[str, Any], seed: int = seed) -> None:
            manifest["seeds"][seed] = {**manifest["seeds"][0], "seed": seed}

        edit(folder, repair)

        def change(e: Evidence, seed: int = seed) -> Evidence:
            return replaced(e, identity={**e.identity, "seed": seed})

        forge_evidence(folder, change, seed)

    assert "are those of seed 0" in reasons_for(board_copy)


@pytest.mark.parametrize("token", ["Aum", "nowhere", "", "7", " "])
def test_words_cannot_be_declared_special(board_copy: Path, token: str) -> None:
    set_in(row_folder(board_copy), "asking.special_tokens", [token])

    assert "is a word, not a special token" in reasons_for(board_copy)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"facts": {"draw": "os:system"}}, "code of its own"),
        ({"kind": "base"}, "kind base does not go with"),
        ({"trainer": {"output_dir": "/"}, "shell": "rm"}, "Extra inputs"),
        ({"name": "other"}, "the row's is 'sft_divided'"),
    ],
)
def test_configs_name_no_code(board_copy: Path, change: dict[str, Any], why: str) -> None:
    edit(row_folder(board_copy), lambda m: m["config"]["strategy"].update(change))

    assert why in reasons_for(board_copy)


@pytest.mark.parametrize(
    ("training", "why"),
    [
        ({"learning_rate": -1.0}, "learning_rate is -1.0, but has to be above 0"),
        ({"learning_rate": "0.1"}, "learning_rate: Input should be a valid number"),
        ({"autocast": "yes"}, "autocast: Input should be a valid boolean"),
        ({"lr_scheduler": "<b>cosine</b>"}, "a text in it holds markup"),
        ({"output_dir": "x"}, "there are no settings 'output_dir' of a training"),
    ],
)
def test_settings_of_a_training_are_possible(
    board_copy: Path, training: dict[str, Any], why: str
) -> None:
    set_in(row_folder(board_copy), "config.training", training)

    assert why in reasons_for(board_copy)


def test_a_config_holds_plain_texts_at_any_depth(board_copy: Path) -> None:
    settings = {"type": "LORA", "settings": {"target_modules": ["q_proj", "<script>"]}}
    edit(row_folder(board_copy), lambda m: m["config"]["strategy"].update(adapter=settings))

    assert "a text in it holds markup ('<')" in reasons_for(board_copy)


def test_a_forgery_consistent_from_end_to_end_passes(board_copy: Path) -> None:
    """What no data can show is what `reproduced` is for; the rules say so."""
    from sftknow_eval.leaderboard.base_store import load_base
    from sftknow_eval.leaderboard.recount import seed_counts

    folder = row_folder(board_copy)
    store = load_base(board_copy / "mastery/the-base")

    def all_right(evidence: Evidence) -> Evidence:
        return dataclasses.replace(
            evidence, outputs=list(store.answers), correct=np.ones(len(evidence), bool)
        )

    forge_evidence(folder, all_right)
    places = store.positions()
    counts = seed_counts(store, places, np.ones(len(places), bool), np.full(len(places), np.nan))
    set_in(folder, "seeds.0.counts", counts.model_dump(mode="json"))

    found = {verdict.path: verdict for verdict in verify(board_copy)}[ROW]

    assert found.status == "recomputed"
