"""Which steps' time counts as the models' and which as the study's own."""

from __future__ import annotations

from sftknow_eval.study.actions import _IN_PLACE, _WHOLE
from sftknow_eval.study.costs import WORK

# Steps that neither train nor ask a model nor pass over its weights.
OWN = {"echo", "null-row", "statistics", "report", "board"}


def test_every_kind_of_step_counts_as_work_on_models_or_as_the_studys_own() -> None:
    kinds = _IN_PLACE.keys() | _WHOLE.keys()

    assert kinds == WORK.keys() | OWN
    assert not WORK.keys() & OWN
