"""The manifest of a submission: what was run on what, and the counts that came out.

`sftknow board submit` writes it. It holds counts, never ratios or intervals: those are computed
by whoever builds a board. It names no paths: where a file lies follows from the seed
(`evidence/seed-0.parquet`, `recipes/seed-0.json`, `training/seed-0.jsonl`).
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.bounded_json import parse_bounded
from sftknow_eval.leaderboard.contained import read_bytes
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.manifest_parts import (
    Asking,
    Base,
    Counts,
    CurvePoint,
    Elements,
    Number,
    Origin,
    Recipe,
    Regime,
    Seed,
    StrategyConfig,
    Strict,
    Training,
    Weights,
)
from sftknow_eval.leaderboard.texts import Contact, Hex, Licence, Line, Passage, Slug

FORMAT: Literal["sftknow-submission/1"] = "sftknow-submission/1"
BENCHMARK: Literal["1"] = "1"
MANIFEST_NAME = "manifest.json"
SCHEMA_NAME = "manifest-1.json"
MANIFEST_LIMIT = 1 << 20
MAX_SEEDS = 32

Track = Literal["strategy", "checkpoint"]
Control = Literal["random_restoration"]


class SeedRun(Strict):
    """One run of the row's strategy: a seed, and with it a draw of the train facts.

    Attributes:
        evidence: SHA-256 of `evidence/seed-K.parquet`; None for a row that is only reported.
        outputs: SHA-256 over its fact ids and outputs.
        prompts: SHA-256 over its fact ids and prompts.
        same_as: a row of the same contact that gives the same outputs.
        chosen: percent restored, or of the way to the fine-tune, where that was chosen.
        curve: of a sweep over restoration ratios, as declared.
        trained_parameters, gpu_hours: as declared.
    """

    seed: Seed
    evidence: Hex | None
    outputs: Hex | None
    prompts: Hex | None
    weights: Weights
    recipe: Recipe | None = None
    training: Training = Training()
    counts: Counts
    same_as: Origin | None = None
    chosen: Annotated[float, Field(ge=0, le=100)] | None = None
    curve: Annotated[tuple[CurvePoint, ...], Field(max_length=64, strict=False)] = ()
    trained_parameters: Elements | None = None
    gpu_hours: Number | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SeedRun:
        if len({value is None for value in (self.evidence, self.outputs, self.prompts)}) > 1:
            raise ValueError("the digests of evidence, outputs and prompts come together")
        return self


class TrainingData(Strict):
    """The submitter's declaration of the training data.

    Attributes:
        declaration: what it was, in words.
        test_facts: whether facts of the test were in it, as far as the submitter knows.
        provided: whether `training/` holds the data or the ids of the facts.
    """

    declaration: Annotated[Passage, Field(min_length=1)]
    test_facts: Literal["no", "yes", "unknown"]
    provided: bool


class Manifest(Strict):
    """A submission: one way of fine-tuning one base in one data regime, over several seeds."""

    format: Literal["sftknow-submission/1"]
    benchmark: Literal["1"]
    track: Track
    base: Base
    strategy: Slug
    run: Slug
    title: Line
    summary: Passage = ""
    regime: Regime
    control: Control | None = None
    config: StrategyConfig | None = None
    asking: Asking
    training_data: TrainingData
    seeds: Annotated[tuple[SeedRun, ...], Field(min_length=1, max_length=MAX_SEEDS, strict=False)]
    licence: Licence
    contact: Contact
    created: Annotated[datetime.date, Field(strict=False)]
    sftknow: Line

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        faults = []
        if len({run.seed for run in self.seeds}) < len(self.seeds):
            faults.append("a seed stands twice")
        if (self.track == "strategy") != (self.config is not None):
            faults.append("the track 'strategy' has a config that can be run again, others none")
        provided = {run.training.sha256 is not None for run in self.seeds}
        if provided != {self.training_data.provided}:
            faults.append("training data is provided for every seed, or declared as not provided")
        if len({run.evidence is None for run in self.seeds}) > 1:
            faults.append("evidence is given for every seed or for none")
        if self.control and not all(run.recipe and run.recipe.sha256 for run in self.seeds):
            faults.append("a control of random restoration has a recipe for every seed")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def row(self) -> str:
        """Return the row's id, which is also its path under `submissions/`."""
        return f"{self.benchmark}/{self.base.id}/{self.strategy}/{self.run}"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a submission.

    Raises:
        SubmissionError: it is missing, too large, not JSON, or not of this format.
    """
    content = read_bytes(folder / MANIFEST_NAME, folder, MANIFEST_LIMIT)
    try:
        return Manifest.model_validate(parse_bounded(content, MANIFEST_NAME))
    except ValidationError as error:
        raise SubmissionError(faults_of(error, MANIFEST_NAME)) from error


def manifest_schema() -> dict[str, Any]:
    """Return the JSON schema that is published as `leaderboard/schema/manifest-1.json`."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Return the published schema's file content."""
    return json.dumps(manifest_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
