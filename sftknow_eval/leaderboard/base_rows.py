"""The board's own controls: the base itself, and the base against itself.

`base` completes the best template of each relation. `base_again` is the base on samples of its own
that had no part in assigning the strata, and is compared with another part of them: its difference
is what no row can be blamed or praised for. Its values are shares of samples at the probe's
temperature, not of greedy answers: read its difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftknow_eval.errors import MasteryError
from sftknow_eval.evaluation.null_row import share_out
from sftknow_eval.leaderboard.columns import BY_KEY
from sftknow_eval.leaderboard.manifest import BENCHMARK
from sftknow_eval.leaderboard.measures import Panel, difference
from sftknow_eval.leaderboard.rows import Contents, Measure, Row
from sftknow_eval.mastery.table import N_STRATA

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.base_store import BaseStore

_CONTROL = ("a control",)


def base_rows(store: BaseStore) -> tuple[Row, ...]:
    """Return the controls that a base's store holds: `base`, and `base_again` where it can be."""
    contents = Contents(store.positions(), store.knows[None])
    panel = Panel.of(store.code, store.subject_code, store.knows)
    row = Row(
        id=f"{BENCHMARK}/{store.info.id}/base",
        folder=None,
        entry=None,
        contents=lambda: contents,
        title="base",
        status="recomputed",
        control="base",
        measures=dict.fromkeys(BY_KEY, Measure(None)) | panel.measures(store.knows[None]),
        not_ranked=_CONTROL,
    )
    again = _base_again(store)
    return (row, again) if again else (row,)


def _base_again(store: BaseStore) -> Row | None:
    place = {name: i for i, name in enumerate(store.table.rows["fact_id"].to_pylist())}
    verdicts = store.table.verdicts()[[place[name] for name in store.ids]]
    try:
        shared = share_out(verdicts)
    except MasteryError:  # too few samples to share out
        return None
    code = N_STRATA * (store.code >= N_STRATA) + shared.stratum_F
    panel = Panel.of(code, store.subject_code, None)
    first, again = (part.mean(axis=(1, 2))[None] for part in shared.quarters)
    return Row(
        id=f"{BENCHMARK}/{store.info.id}/base_again",
        folder=None,
        entry=None,
        contents=Contents,
        title="base again (shares of samples)",
        status="recomputed",
        control="base_again",
        measures=dict.fromkeys(BY_KEY, Measure(None)) | panel.measures(again),
        not_ranked=_CONTROL,
        base_difference={
            domain: difference(again, first, panel.means[domain])
            for domain in ("id", "ood")
            if panel.means[domain].parts
        },
    )
