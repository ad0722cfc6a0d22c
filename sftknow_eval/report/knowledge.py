"""What a fine-tune knows beside its base: the evaluation that reports and gates stand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.report.asked import Asked, Material, selection
from sftknow_eval.report.base_of import Base
from sftknow_eval.report.panel import Panel

if TYPE_CHECKING:
    from sftknow_eval.evaluation.results import Outcome


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The answers of a fine-tune and of its base to the same facts.

    Attributes:
        summary: `results.json` of the evaluation.
    """

    base: tuple[Outcome, ...]
    finetuned: tuple[Outcome, ...]
    summary: dict[str, Any]


def ask(
    asked: Asked, base: Base, model: str, material: Material, panel: Panel | None, folder: Path
) -> None:
    """Ask a whole model and its base, and write what `sftknow eval` writes into `folder`.

    Raises:
        SftknowError: as `evaluate` does.
    """
    from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate

    request = EvaluationRequest(
        finetuned=model,
        base=base.name,
        metadata={**material.metadata(), **selection(panel, asked.split, folder)},
        style=asked.style,
        backend=asked.backend,
        engine_args=asked.engine_args,
        batch_size=asked.batch_size,
    )
    evaluate(request, folder)


def read_knowledge(folder: Path) -> Knowledge:
    """Read what `ask` wrote."""
    from sftknow_eval.evaluation.facts_file import read_outcomes
    from sftknow_eval.evaluation.summary import RESULTS_NAME

    return Knowledge(
        tuple(read_outcomes(folder, "base")),
        tuple(read_outcomes(folder, "finetuned")),
        read_json(folder / RESULTS_NAME),
    )
