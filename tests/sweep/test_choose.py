"""The ratio comes from dev facts, exactly and always the smallest of the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.sweep.choose import choose_ratio, write_choice


def sweep_of(scores: dict[float, list[tuple[int, int]]], split: str = "dev") -> dict[str, Any]:
    """Return a sweep with (correct, asked) of each stratum by ratio."""
    points = [
        {
            "ratio": ratio,
            "same_as": None,
            "scores": {
                "id": {"alias_acc": {"strata": [{"n_correct": c, "n": n} for c, n in strata]}}
            },
        }
        for ratio, strata in scores.items()
    ]
    return {"task": {"split": split}, "points": points}


def test_the_best_mean_of_strata_wins_and_of_equal_ones_the_smallest_ratio() -> None:
    # Means of strata: 1/2 at 0; (1/3 + 2/3 + 1) / 3 = 2/3 at 5 and, in another order, at 20.
    sweep = sweep_of(
        {
            0: [(1, 2), (5, 10)],
            20: [(3, 3), (1, 3), (2, 3)],
            5: [(1, 3), (2, 3), (3, 3)],
            60: [(0, 3), (3, 3), (0, 0)],
        }
    )
    choice = choose_ratio(sweep)
    assert choice.ratio == 5
    assert choice.score == pytest.approx(2 / 3)
    assert choice.why == (
        "best ID mean of strata on dev facts, 66.67%, of 4 ratios; shared by 5, 20: the smallest "
        "is taken"
    )


def test_a_ratio_that_is_another_ones_model_is_not_chosen() -> None:
    sweep = sweep_of({0: [(1, 4)], 40: [(3, 4)]})
    sweep["points"].append({"ratio": 60, "same_as": 40})
    assert choose_ratio(sweep).ratio == 40


def test_the_test_split_never_chooses(tmp_path: Path) -> None:
    test = sweep_of({0: [(1, 4)], 40: [(3, 4)]}, "test")
    with pytest.raises(SettingsError, match="never chosen on the test split"):
        choose_ratio(test)
    assert write_choice(tmp_path, {"": test}) is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="No ratio"):
        choose_ratio(sweep_of({0: [(0, 0)]}))


def test_the_choice_is_written_with_every_sets_score_there(tmp_path: Path) -> None:
    dev = sweep_of({0: [(1, 4)], 40: [(3, 4)]})
    test = sweep_of({0: [(4, 4)], 40: [(2, 4)]}, "test")
    train = sweep_of({0: [(4, 4)]}, "listed")
    write_choice(tmp_path, {"dev": dev, "test": test, "train": train})
    written = json.loads((tmp_path / "choice.json").read_text())
    assert written["ratio"] == 40
    assert written["split"] == "dev"
    assert written["ratios"] == [0, 40]
    assert written["scores"] == {"dev": 0.75, "test": 0.5, "train": None}
