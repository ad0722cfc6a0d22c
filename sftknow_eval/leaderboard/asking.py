"""How a model was asked, for the manifest; and that our judge says the same again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.evidence import Evidence
from sftknow_eval.leaderboard.manifest_parts import Asking
from sftknow_eval.leaderboard.recount import judge_outputs
from sftknow_eval.mastery.facts import Fact


def asking_of(record: Mapping[str, Any], model: Path | str, documents: str) -> Asking:
    """Return how a model was asked.

    Args:
        record: what the results say of the model (`finetuned` or `base`).
        model: whose tokenizer says which tokens are special.
        documents: digest of the facts asked.
    """
    from sftknow_eval.evaluation.tasks import special_tokens

    return Asking(
        style=record["style"],
        num_fewshot=record["num_fewshot"],
        special_tokens=special_tokens(str(model)),
        split="test",
        documents=documents,
        backend=record["backend"],
        dtype=str(record["engine_args"].get("dtype", "auto")).lower(),
        versions={name: str(version) for name, version in record["versions"].items()},
    )


def judged(evidence: Evidence, facts: Sequence[Fact], asking: Asking, whose: str) -> Evidence:
    """Return the evidence with our verdicts; they have to be those of the evaluation.

    Raises:
        SubmissionError: they are not: the texts were judged with other special tokens or aliases.
    """
    verdicts = judge_outputs(evidence.outputs, [fact.aliases for fact in facts], asking)
    wrong = np.flatnonzero(verdicts != evidence.correct)
    if len(wrong):
        raise SubmissionError(
            f"The judge differs from the evaluation of {whose} on {len(wrong)} facts, such as "
            f"{evidence.fact_ids[wrong[0]]}. Was it evaluated on other data, or is its tokenizer "
            "no longer where it was? Evaluate again with this version."
        )
    return dataclasses.replace(evidence, correct=verdicts)
