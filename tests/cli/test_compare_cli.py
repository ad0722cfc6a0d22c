"""`sftknow compare` on results written by hand: what is shown, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_calls import Sftknow

from sftknow_eval.evaluation.facts_file import write_facts
from sftknow_eval.evaluation.results import Outcome


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


def outcomes(seed: int, level: float) -> list[Outcome]:
    """Return 200 facts of all strata, right with the given chance."""
    right = np.random.default_rng(seed).random(200) < level
    return [
        Outcome(
            f"P17-test-{number:04d}",
            f"P{number % 4}",
            "id",
            number % 5,
            "prompt",
            "output",
            dict.fromkeys(("alias_acc", "alias_word_acc", "exact_match"), bool(verdict)),
            0.0,
            f"subject {number // 2}",
        )
        for number, verdict in enumerate(right)
    ]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three fine-tunes of one base, the second much worse."""
    base, found = outcomes(0, 0.6), []
    for seed, level in enumerate((0.6, 0.2, 0.6), 1):
        folder = tmp_path / f"run-{seed}"
        write_facts(folder / "facts.parquet", outcomes(seed, level), base)
        found.append(folder)
    return found


def test_two_are_shown_by_stratum(folders: list[Path], sftknow: Sftknow) -> None:
    done = sftknow("compare", *folders[:2], "--draws", 500)
    assert done.code == 0
    assert "Verdicts agree on" in done.out
    for title in ("run-1 against base", "run-2 against base", "run-2 against run-1"):
        assert f"{title}, in-domain" in done.out
    assert "out-of-domain" not in done.out
    assert "<0.001" in done.out
    assert "Not compared" not in done.out


def test_several_are_shown_in_a_line_each(folders: list[Path], sftknow: Sftknow) -> None:
    done = sftknow("compare", *folders, "--reference", 3, "--draws", 500)
    assert "Mean of strata against base, in-domain" in done.out
    assert "Mean of strata against run-3, in-domain" in done.out
    assert "Verdicts agree" not in done.out
    found = json.loads(sftknow("compare", *folders, "--draws", 500, "--json").out)["comparison"]
    assert found["draws"] == 500
    assert [pair["against"] for pair in found["pairs"]] == ["base"] * 3 + ["run-1"] * 2
    worse = found["pairs"][1]["domains"]["id"]
    assert worse["mean"]["difference"]["high"] < -0.2
    assert worse["mean"]["p_holm"] < 0.01
    tests = {family["level"]: family["tests"] for family in found["families"][:3]}
    assert tests == {"strata": 15, "all": 3, "mean": 3}


def test_bases_that_differ_are_left_out_and_named(
    folders: list[Path], tmp_path: Path, sftknow: Sftknow
) -> None:
    write_facts(tmp_path / "other" / "facts.parquet", outcomes(1, 0.6), outcomes(9, 0.6))
    write_facts(tmp_path / "alone" / "facts.parquet", outcomes(1, 0.6))
    done = sftknow("compare", folders[0], tmp_path / "other", "--draws", 500)
    assert "Not compared with the base: the base in" in done.out.replace("\n", " ")
    assert "other against run-1" in done.out
    done = sftknow("compare", folders[0], tmp_path / "alone", "--draws", 500)
    assert "holds no answers of the base" in done.out.replace("\n", " ")
    refused = sftknow("compare", folders[0], tmp_path / "alone", "--reference", 0)
    assert refused.code == 2
    assert "Without a reference there is only the base" in refused.err


def test_a_folder_may_be_called_base(folders: list[Path], sftknow: Sftknow) -> None:
    renamed = folders[0].rename(folders[0].with_name("base"))
    done = sftknow("compare", renamed, folders[1], "--draws", 500, "--json")
    assert json.loads(done.out)["comparison"]["runs"] == [str(renamed), str(folders[1])]


def test_what_cannot_be_compared_is_refused(
    folders: list[Path], tmp_path: Path, sftknow: Sftknow
) -> None:
    write_facts(tmp_path / "fewer" / "facts.parquet", outcomes(1, 0.6)[:50])
    earlier = [replace(outcome, subject="") for outcome in outcomes(1, 0.6)]
    write_facts(tmp_path / "earlier" / "facts.parquet", earlier)
    for words, message in (
        ((folders[0],), "One folder is nothing to compare"),
        ((folders[0], folders[0]), "named twice"),
        ((*folders[:2], "--reference", 3), "--reference is 3"),
        ((*folders[:2], "--draws", 3), "3 draws are too few"),
        ((folders[0], tmp_path / "nowhere"), "not readable"),
        ((folders[0], tmp_path / "fewer"), "not of the same facts"),
        ((tmp_path / "earlier", folders[0]), "evaluate again"),
    ):
        done = sftknow("compare", *words)
        assert done.code == 2, message
        assert message in done.err.replace("\n", " "), message
