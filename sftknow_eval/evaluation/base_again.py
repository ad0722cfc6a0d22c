"""The control `base_again` as a run among others, written like an evaluation.

Reports and boards read it as they read `sftknow eval`; `null_row` has the sharper measurement, from
all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import write_json
from sftknow_eval.evaluation.facts_file import FACTS_NAME, write_facts
from sftknow_eval.evaluation.null_row import NullRow, null_row, probed, share_out
from sftknow_eval.evaluation.results import Outcome
from sftknow_eval.evaluation.summary import RESULTS_FORMAT, RESULTS_NAME, summary_of
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.facts import Fact, Split
from sftknow_eval.mastery.table import MasteryTable, half

NULL_ROW_NAME = "null_row.json"
NULL_ROW_FORMAT = "sftknow-null-row/1"


def base_again_outcomes(
    table: MasteryTable, facts: Sequence[Fact], *, seed: int = 0
) -> tuple[list[Outcome], list[Outcome]]:
    """Return the base and the base again as outcomes, to stand among other runs.

    Strata are by one half of the samples. The answers are two single samples of the other half, by
    the relation's best template, as the base is asked in an evaluation (there greedily, here at
    the temperature of the probe). The table holds verdicts and no texts: `output` is empty, and
    only `alias_acc` is known.

    Raises:
        MasteryError: the table is of other facts, or has too few samples.
    """
    held, rows = probed(table, facts)
    shared, best = share_out(table.verdicts()[rows], seed), table.best_templates()
    template_F = [best[fact.relation, half(fact.digest())].index for fact in held]
    base, again = (
        [
            _outcome(fact, int(shared.stratum_F[row]), bool(part[row, template_F[row], 0]))
            for row, fact in enumerate(held)
        ]
        for part in shared.quarters
    )
    return base, again


def _outcome(fact: Fact, stratum_: int, right: bool) -> Outcome:
    verdicts = {"alias_acc": right, "alias_word_acc": None, "exact_match": None}
    return Outcome(
        *(fact.id, fact.relation, fact.domain, stratum_, "", "", verdicts),
        token_f1=float("nan"),
        subject=fact.subject,
    )


def write_base_again(
    table: MasteryTable, dataset: Dataset, out: Path, *, split: Split = "test", seed: int = 0
) -> NullRow:
    """Write the control's `results.json`, `facts.parquet` and `null_row.json`; no model is run.

    Args:
        table: the base's mastery table.
        dataset: that the base was probed on.
        out: the folder.
        split: of the facts.
        seed: decides which samples go where.

    Raises:
        MasteryError: the table is of other facts, or has too few samples.
    """
    facts = dataset.probe_facts(splits=(split,))
    row = null_row(table, facts, seed=seed)
    base, again = base_again_outcomes(table, facts, seed=seed)
    write_json(out / NULL_ROW_NAME, {"format": NULL_ROW_FORMAT, "seed": seed, **row.as_json()})
    write_facts(out / FACTS_NAME, again, base)
    summary = {
        "format": RESULTS_FORMAT,
        "task": _task(table, dataset, split, len(base), len(facts)),
        "finetuned": _model(table) | {"style_from": "samples of the mastery table"},
        "base": _model(table) | {"base_from": "mastery table"},
        "base_missing": None,
        **summary_of(again, base),
    }
    write_json(out / RESULTS_NAME, summary)
    return row


def _task(
    table: MasteryTable, dataset: Dataset, split: Split, n_tested: int, n_selected: int
) -> dict[str, Any]:
    return {
        "style": "completion",
        "split": split,
        "data": dataset.name,
        "relations": "all",
        "facts": n_tested,
        "facts_not_probed": n_selected - n_tested,
        "mastery_base": table.meta.base,
        "mastery_revision": table.meta.revision,
        "mastery_fingerprint": table.meta.fingerprint,
        "mastery_templates": table.meta.templates_digest,
        "samples_per_fact": table.meta.n_samples,
        "best_templates": None,
        "strata_from": "one half of the samples",
    }


def _model(table: MasteryTable) -> dict[str, Any]:
    return {
        "model": table.meta.base,
        "fingerprint": table.meta.fingerprint,
        "backend": None,
        "engine_args": {"temperature": table.meta.temperature},
        "style": "completion",
        "num_fewshot": 0,
        "limit": None,
        "versions": {},
    }
