"""Hostile submissions, numbers and evidence: each is refused with its reason.

Expected reasons are written down here from the rules in docs/leaderboard.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import (
    edit,
    forge_evidence,
    reasons_for,
    replaced,
    row_folder,
    set_in,
)

from sftknow_eval.leaderboard.evidence import Evidence, prompt_digests

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
