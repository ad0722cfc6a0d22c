"""The manifest of a submission: what was run on what, and the counts that came out.

`sftknow board submit` writes it. It holds counts, never ratios or intervals: those are computed
by whoever builds a board. It names no paths: where a file lies follows from the seed
(`evidence/seed-0.parquet`, `recipes/seed-0.json`, `training/seed-0.jsonl`).
"""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sftknow_eval.leaderboard.texts import (
    Contact,
    FileName,
    Hex,
    Licence,
    Line,
    Passage,
    Slug,
    Token,
)
from sftknow_eval.mastery.table import N_STRATA

FORMAT = "sftknow-submission/1"
BENCHMARK = "1"
MANIFEST_NAME = "manifest.json"
SCHEMA_NAME = "manifest-1.json"
MANIFEST_LIMIT = 1 << 20
MAX_SEEDS = 32

Track = Literal["strategy", "checkpoint"]
Control = Literal["random_restoration"]
Count = Annotated[int, Field(ge=0, le=10**9)]
Elements = Annotated[int, Field(ge=0, le=10**14)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e9)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Base(_Strict):
    """The base model whose knowledge is at stake.

    Attributes:
        id: its folder under `leaderboard/mastery/`.
        fingerprint: of its weights.
        mastery: SHA-256 of its mastery table's file.
        facts: SHA-256 of its facts' file.
    """

    id: Slug
    name: Line
    revision: Line | None
    fingerprint: Hex
    mastery: Hex
    facts: Hex


class Regime(_Strict):
    """What data the row was allowed to train on; only equal regimes are compared.

    Attributes:
        kind: `divided` is one stratum of the train facts, `mixed` all strata, `open` any data.
        stratum: of a divided regime.
        n: number of train facts; None for all there are.
    """

    kind: Literal["divided", "mixed", "open"]
    stratum: Annotated[int, Field(ge=0, lt=N_STRATA)] | None = None
    n: Annotated[int, Field(ge=1, le=10**9)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Regime:
        if (self.kind == "divided") != (self.stratum is not None):
            raise ValueError("a divided regime names its stratum, others do not")
        if self.kind == "open" and self.n is not None:
            raise ValueError("an open regime has no number of facts")
        return self

    @property
    def key(self) -> str:
        """Return a short name: `s0-n240`, `all-n1920`, `s2-all` or `open`."""
        if self.kind == "open":
            return "open"
        part = "all" if self.stratum is None else f"s{self.stratum}"
        return f"{part}-{'all' if self.n is None else f'n{self.n}'}"

    @property
    def label(self) -> str:
        """Return the regime in words."""
        if self.kind == "open":
            return "any training data"
        part = "all strata" if self.stratum is None else f"stratum {self.stratum}"
        return f"{'all' if self.n is None else f'{self.n:,}'} train facts of {part}"


class Asking(_Strict):
    """How the model was asked and judged.

    Attributes:
        special_tokens: taken out of outputs before they are judged.
        documents: SHA-256 over the facts asked (`BaseStore.documents`).
    """

    style: Literal["paper", "plain", "chat", "completion"]
    num_fewshot: Annotated[int, Field(ge=0, le=64)]
    special_tokens: Annotated[tuple[Token, ...], Field(max_length=2_048, strict=False)]
    split: Literal["test"]
    documents: Hex
    backend: Slug
    dtype: Slug
    versions: Annotated[dict[FileName, Line], Field(max_length=64)]


class WeightFile(_Strict):
    """One file of the evaluated model."""

    name: FileName
    bytes: Elements
    sha256: Hex


class Weights(_Strict):
    """The evaluated model.

    Attributes:
        name: folder name or hub id.
        revision: of a hub id, or of an adapter.
        fingerprint: of its weights before any restoration.
        files: of the model or adapter folder; empty for a model that was restored on load.
    """

    name: Line
    revision: Line | None
    fingerprint: Hex
    files: Annotated[tuple[WeightFile, ...], Field(max_length=1_024, strict=False)] = ()


class Recipe(_Strict):
    """What was restored: a recipe file, or a mask whose digest is given.

    Attributes:
        sha256: of `recipes/seed-K.json`; None with a mask only.
        digest: of what the recipe does; the one lm-eval's results name.
        mask: SHA-256 of a materialised mask, if that was used.
    """

    sha256: Hex | None = None
    digest: Hex | None = None
    mask: Hex | None = None

    @model_validator(mode="after")
    def _given(self) -> Recipe:
        if (self.sha256 is None) != (self.digest is None):
            raise ValueError("a recipe has both the digest of its file and of what it does")
        if self.sha256 is None and self.mask is None:
            raise ValueError("name a recipe or a mask")
        return self


class Share(_Strict):
    """A count of facts."""

    n_correct: Count
    n: Count

    @model_validator(mode="after")
    def _possible(self) -> Share:
        if self.n_correct > self.n:
            raise ValueError(f"{self.n_correct} of {self.n} is impossible")
        return self


Strata = Annotated[tuple[Share, ...], Field(min_length=N_STRATA, max_length=N_STRATA, strict=False)]


class Counts(_Strict):
    """All counts of one seed; each follows from its evidence and the base's.

    Attributes:
        id, ood: by stratum; None where the domain was not asked.
        lost: of the facts that the base knows.
        gained: of those that it does not.
        token_drift: mean top-10 KL (nats) and over how many facts; None if not measured.
    """

    id: Strata | None
    ood: Strata | None
    lost: Share
    gained: Share
    token_drift: TokenDrift | None = None


class TokenDrift(_Strict):
    """Mean top-10 KL in nats over `n` facts."""

    mean: Number
    n: Annotated[int, Field(ge=1, le=10**9)]


class Training(_Strict):
    """What this seed was trained on.

    Attributes:
        facts: number of train facts; None where that is not how it was trained.
        facts_digest: of the training record.
        sha256: of `training/seed-K.jsonl`, where the data or the fact ids are provided.
    """

    facts: Count | None = None
    facts_digest: Hex | None = None
    sha256: Hex | None = None


class Origin(_Strict):
    """Another row's seed that gives the same outputs, and is known to."""

    row: Annotated[str, Field(pattern=r"^[a-z0-9._-]+(?:/[a-z0-9._-]+){3}$", max_length=300)]
    seed: Seed


class SeedRun(_Strict):
    """One run of the row's strategy: a seed, and with it a draw of the train facts.

    Attributes:
        evidence: SHA-256 of `evidence/seed-K.parquet`.
        outputs: SHA-256 over its fact ids and outputs.
        prompts: SHA-256 over its fact ids and prompts.
        same_as: a row of the same contact that gives the same outputs.
        trained_parameters, gpu_hours: as declared.
    """

    seed: Seed
    evidence: Hex
    outputs: Hex
    prompts: Hex
    weights: Weights
    recipe: Recipe | None = None
    training: Training = Training()
    counts: Counts
    same_as: Origin | None = None
    trained_parameters: Elements | None = None
    gpu_hours: Number | None = None


class TrainingData(_Strict):
    """The submitter's declaration of the training data.

    Attributes:
        declaration: what it was, in words.
        test_facts: whether facts of the test were in it, as far as the submitter knows.
        provided: whether `training/` holds the data or the ids of the facts.
    """

    declaration: Annotated[Passage, Field(min_length=1)]
    test_facts: Literal["no", "yes", "unknown"]
    provided: bool


class Manifest(_Strict):
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
    config: Annotated[dict[str, JsonValue], Field(max_length=256)] | None = None
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
        if self.control and not all(run.recipe and run.recipe.sha256 for run in self.seeds):
            faults.append("a control of random restoration has a recipe for every seed")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def row(self) -> str:
        """Return the row's id, which is also its path under `submissions/`."""
        return f"{self.benchmark}/{self.base.id}/{self.strategy}/{self.run}"


def manifest_schema() -> dict[str, Any]:
    """Return the JSON schema that is published as `leaderboard/schema/manifest-1.json`."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Return the published schema's file content."""
    return json.dumps(manifest_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
