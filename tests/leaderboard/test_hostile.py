"""Hostile submissions: each is refused with its reason, and none keeps the others off the board.

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

from sftknow_eval.leaderboard.evidence import Evidence, prompt_digests
from sftknow_eval.leaderboard.verify import verify

TEXTS = ("title", "summary", "training_data.declaration", "sftknow", "seeds.0.weights.name")
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "&#60;b&#62;",
    "</td></tr>",
)


@pytest.mark.parametrize("place", TEXTS)
@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_refused_in_every_text(board_copy: Path, place: str, text: str) -> None:
    set_in(row_folder(board_copy), place, text)

    assert "holds markup" in reasons_for(board_copy)


@pytest.mark.parametrize("place", ["strategy", "run", "base.id", "asking.backend", "asking.dtype"])
@pytest.mark.parametrize("name", ["<b>", "a b", "../../etc", "a/b", "..", "a\x00b", "A", "", "é"])
def test_names_are_plain(board_copy: Path, place: str, name: str) -> None:
    set_in(row_folder(board_copy), place, name)

    assert place in reasons_for(board_copy)


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "http://example.org",
        "https://example.org/<script>",
        "mail me",
        "a@b@c",
        "",
    ],
)
def test_a_contact_is_an_address(board_copy: Path, text: str) -> None:
    set_in(row_folder(board_copy), "contact", text)

    assert "contact" in reasons_for(board_copy)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("best \u202egnp.exe", "invisible character U\\+202E"),
        ("zero\u200bwidth", "invisible character U\\+200B"),
        ("bell\x07", "invisible character U\\+0007"),
        ("l\u043er\u0430 tuning", "mixes cyrillic and latin"),
        ("\u03b1lpha run", "mixes greek and latin"),
        ("\uff4c\uff4f\uff52\uff41", "stand for others"),
        ("\ufb01ne-tune", "stand for others"),
        ("line\u2028break", "line separator"),
    ],
)
def test_lookalike_and_invisible_characters_are_refused(
    board_copy: Path, text: str, why: str
) -> None:
    import re

    set_in(row_folder(board_copy), "title", text)

    assert re.search(why, reasons_for(board_copy))


def test_texts_in_one_script_are_welcome(board_copy: Path) -> None:
    for text in ("Тонкая настройка", "微調整 LoRA", "Réglage fin, β = 0.98"):
        set_in(row_folder(board_copy), "title", text)
        assert {v.path: v.status for v in verify(board_copy)}[ROW] == "recomputed", text


@pytest.mark.parametrize("name", ["bett-er", "be_tter", "b.etter"])
def test_a_name_that_looks_like_another_is_refused(board_copy: Path, name: str) -> None:
    folder = row_folder(board_copy).with_name(name)
    row_folder(board_copy).rename(folder)
    edit(folder, lambda m: m.update(run=name, created="2199-01-01"))
    for restored in (RESTORED, RANDOM):  # their recipes were made for this row's weights
        shutil.rmtree(row_folder(board_copy, restored))

    reasons = reasons_for(board_copy, f"1/the-base/sft_divided/{name}")

    assert "looks like 'better'" in reasons


@pytest.mark.parametrize("name", ["sft_dlvlded", "sft-divided", "sft_d1v1ded"])
def test_a_strategy_that_looks_like_another_is_refused(board_copy: Path, name: str) -> None:
    folder = board_copy / "submissions/1/the-base" / name / "better"
    folder.parent.mkdir()
    row_folder(board_copy, OTHER).rename(folder)

    def rename(manifest: dict[str, Any]) -> None:
        manifest |= {"strategy": name, "created": "2199-01-01"}
        manifest |= {"track": "checkpoint", "config": None}

    edit(folder, rename)

    reasons = reasons_for(board_copy, f"1/the-base/{name}/better")

    assert f"its name '{name}' looks like 'sft_divided'" in reasons


NUMBERS = {
    "seeds.0.counts.lost.n_correct": (-1, 10**12, 1.5, "3", None, True),
    "seeds.0.counts.token_drift": ({"mean": -1.0, "n": 5}, {"mean": 1.0, "n": 0}),
    "seeds.0.gpu_hours": (-0.5, "1"),
    "seeds.0.trained_parameters": (-1, 10**20),
    "seeds.0.seed": (-1, 2**40),
    "regime.n": (0, -240),
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, found in NUMBERS.items() for value in found]
)
def test_impossible_numbers_are_refused(board_copy: Path, place: str, value: Any) -> None:
    set_in(row_folder(board_copy), place, value)

    assert place.rsplit(".", 1)[0].split(".")[-1] in reasons_for(board_copy)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(board_copy: Path, number: str) -> None:
    path = row_folder(board_copy) / "manifest.json"
    path.write_text(path.read_text().replace('"gpu_hours": null', f'"gpu_hours": {number}', 1))

    assert f"{number} is not a number" in reasons_for(board_copy)


@pytest.mark.parametrize("drift", [np.inf, -0.5])
def test_impossible_token_drift_is_refused(board_copy: Path, drift: float) -> None:
    def change(evidence: Evidence) -> Evidence:
        kl = evidence.kl.copy()
        kl[0] = drift
        return replaced(evidence, kl=kl)

    forge_evidence(row_folder(board_copy), change)

    assert "token drift is negative or no number" in reasons_for(board_copy)


@pytest.mark.parametrize(
    "place", ["", "base", "asking", "seeds.0", "seeds.0.counts", "config", "training_data"]
)
def test_unknown_fields_are_refused(board_copy: Path, place: str) -> None:
    set_in(row_folder(board_copy), f"{place}.rank" if place else "rank", 1)

    assert "Extra inputs are not permitted" in reasons_for(board_copy)


def test_edited_counts_are_refused(board_copy: Path) -> None:
    for place in ("id.0", "ood.4"):
        set_in(row_folder(board_copy), f"seeds.1.counts.{place}", {"n_correct": 24, "n": 24})

    reasons = reasons_for(board_copy)

    assert "seed 1: id is claimed as 24/24" in reasons
    assert "seed 1: ood is claimed as" in reasons


def test_edited_verdicts_are_refused_with_their_facts(board_copy: Path) -> None:
    forge_evidence(row_folder(board_copy), lambda e: replaced(e, correct=np.ones(len(e), bool)))

    assert "verdicts do not follow from the outputs: 'P" in reasons_for(board_copy)


def test_edited_outputs_are_refused(board_copy: Path) -> None:
    forge_evidence(
        row_folder(board_copy),
        lambda e: replaced(e, outputs=[f"{text} Aum" for text in e.outputs]),
        digests=False,
    )

    reasons = reasons_for(board_copy)

    assert "it was changed" in reasons
    assert "outputs are not those whose digest" in reasons


def test_swapped_samples_are_refused_although_every_digest_fits(board_copy: Path) -> None:
    def swap(evidence: Evidence) -> Evidence:
        outputs, prompts = evidence.outputs[::-1], evidence.prompts
        taken = [prompts[8 * i : 8 * i + 8] for i in range(len(evidence))][::-1]
        return replaced(
            evidence, outputs=outputs, prompts=b"".join(taken), correct=evidence.correct[::-1]
        )

    forge_evidence(row_folder(board_copy), swap)

    assert "samples were swapped" in reasons_for(board_copy)


def test_other_prompts_than_those_of_the_style_are_refused(board_copy: Path) -> None:
    forge_evidence(
        row_folder(board_copy),
        lambda e: replaced(e, prompts=prompt_digests(f"Hint! {i}" for i in e.fact_ids)),
    )

    assert "prompts are not those of the style 'paper'" in reasons_for(board_copy)


def test_evidence_of_another_seed_is_refused(board_copy: Path) -> None:
    folder = row_folder(board_copy)
    shutil.copyfile(folder / "evidence/seed-1.parquet", folder / "evidence/seed-0.parquet")

    def repair(manifest: dict[str, Any]) -> None:
        for name in ("evidence", "outputs", "prompts", "counts"):
            manifest["seeds"][0][name] = manifest["seeds"][1][name]

    edit(folder, repair)

    assert "belongs to another seed" in reasons_for(board_copy) or "another weights" in (
        reasons_for(board_copy)
    )


@pytest.mark.parametrize("how", ["doubled", "missing", "unknown", "reordered"])
def test_facts_are_those_of_the_base_each_once(board_copy: Path, how: str) -> None:
    def change(evidence: Evidence) -> Evidence:
        n = len(evidence)
        taken = {
            "doubled": [0, *range(n - 1)],
            "missing": list(range(n - 1)),
            "unknown": list(range(n)),
            "reordered": [1, 0, *range(2, n)],
        }[how]
        ids = [evidence.fact_ids[i] for i in taken]
        if how == "unknown":
            ids[3] = "P19-test-9999"
        return replaced(
            evidence,
            fact_ids=ids,
            outputs=[evidence.outputs[i] for i in taken],
            prompts=b"".join(evidence.prompts[8 * i : 8 * i + 8] for i in taken),
            correct=evidence.correct[taken],
            kl=evidence.kl[taken],
        )

    forge_evidence(row_folder(board_copy), change)

    expected = {
        "doubled": "facts stand twice",
        "missing": "1 facts are missing",
        "unknown": "are no test facts of 'the-base'",
        "reordered": "not in the order",
    }
    assert expected[how] in reasons_for(board_copy)


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
