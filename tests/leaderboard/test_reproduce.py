"""A row that was really trained is run again and comes out the same (CPU, float32)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from board_making import DECLARATION, mastery_table

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.intake import Naming, submit
from sftknow_eval.leaderboard.ranking import board
from sftknow_eval.leaderboard.reproduce import Rerun, reproduce, row_to_run
from sftknow_eval.leaderboard.reproductions import record_path


def test_a_trained_row_is_reproduced_fact_by_fact(tiny_world: Path, tmp_path: Path) -> None:
    from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.training.run import TrainRequest, train_strategy
    from sftknow_eval.training.strategy import load_strategy

    base = tiny_world / "base"
    file = tmp_path / "mastery.parquet"
    table = mastery_table(tiny_world, base, file)
    request = TrainRequest(
        base=str(base), out=tmp_path / "model", stratum=0, n=8, training={"learning_rate": 1e-3}
    )
    train_strategy(load_strategy("sft_divided"), request, open_dataset(tiny_world), table)
    asked = EvaluationRequest(
        finetuned=str(tmp_path / "model"),
        base=str(base),
        metadata={"mastery": str(file), "data": str(tiny_world)},
    )
    evaluate(asked, tmp_path / "results")
    root = tmp_path / "leaderboard"
    naming = Naming(mastery=file, data=tiny_world, base_name="tiny")
    folder = submit([tmp_path / "results"], root, DECLARATION, naming)[0]
    row = str(folder.relative_to(root / "submissions"))

    rerun = Rerun(
        root=root, row=row, base=str(base), data=tiny_world, out=tmp_path / "again", by="me"
    )
    record, differing = reproduce(rerun)

    assert differing == []
    assert record.same_outputs == 1
    assert json.loads(record_path(root, row).read_text())["row"] == row
    assert board(root).rows()[row].status == "reproduced"


def test_only_rows_of_the_strategy_track_can_be_run_again(board_copy: Path) -> None:
    from forging import edit, row_folder

    edit(row_folder(board_copy), lambda m: m.update(track="checkpoint", config=None))

    with pytest.raises(SubmissionError, match="checkpoint track"):
        row_to_run(board_copy, "1/the-base/sft_divided/s0-n24")


def test_a_row_that_is_not_there_is_said(board_copy: Path) -> None:
    with pytest.raises(SubmissionError, match="There is no row"):
        row_to_run(board_copy, "1/the-base/nothing/s0-n24")
