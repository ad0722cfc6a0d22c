"""The parts of a manifest: base, data regime, way of asking, weights, recipe, counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sftknow_eval.leaderboard.texts import FileName, Hex, Line, Slug, Token
from sftknow_eval.mastery.table import N_STRATA

Count = Annotated[int, Field(ge=0, le=10**9)]
Elements = Annotated[int, Field(ge=0, le=10**14)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e9)]


class Strict(BaseModel):
    """Unknown fields and values of other types are refused.

    Built when first used: the manifest holds all its parts, and nearly always is all that is used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Base(Strict):
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


class Regime(Strict):
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


class Asking(Strict):
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


class WeightFile(Strict):
    """One file of the evaluated model."""

    name: FileName
    bytes: Elements
    sha256: Hex


class Weights(Strict):
    """The evaluated model.

    Attributes:
        name: folder name or hub id.
        revision: of a hub id, or of an adapter.
        fingerprint: of its weights before any restoration.
        checksum: the same weights as recipes recognise them; None where nothing is restored.
        files: of the model or adapter folder; empty for a model that was restored on load.
    """

    name: Line
    revision: Line | None
    fingerprint: Hex
    checksum: Hex | None = None
    files: Annotated[tuple[WeightFile, ...], Field(max_length=1_024, strict=False)] = ()


class Recipe(Strict):
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


class Share(Strict):
    """A count of facts."""

    n_correct: Count
    n: Count

    @model_validator(mode="after")
    def _possible(self) -> Share:
        if self.n_correct > self.n:
            raise ValueError(f"{self.n_correct} of {self.n} is impossible")
        return self


Strata = Annotated[tuple[Share, ...], Field(min_length=N_STRATA, max_length=N_STRATA, strict=False)]


class TokenDrift(Strict):
    """Mean top-10 KL in nats over `n` facts."""

    mean: Number
    n: Annotated[int, Field(ge=1, le=10**9)]


class Counts(Strict):
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


class Training(Strict):
    """What this seed was trained on.

    Attributes:
        facts: number of train facts; None where that is not how it was trained.
        facts_digest: of the training record.
        sha256: of `training/seed-K.jsonl`, where the data or the fact ids are provided.
    """

    facts: Count | None = None
    facts_digest: Hex | None = None
    sha256: Hex | None = None


class Origin(Strict):
    """Another row's seed that gives the same outputs, and is known to."""

    row: Annotated[str, Field(pattern=r"^[a-z0-9._-]+(?:/[a-z0-9._-]+){3}$", max_length=300)]
    seed: Seed


class StrategyConfig(Strict):
    """What a maintainer needs to run a row of the strategy track again.

    Attributes:
        strategy: as in `configs/strategies/`, whole.
        source: the strategy whose fine-tune it is made from, whole; None for one that trains.
        training: settings of the optimisation that went before the strategy's own.
    """

    strategy: Annotated[dict[str, JsonValue], Field(max_length=64)]
    source: Annotated[dict[str, JsonValue], Field(max_length=64)] | None = None
    training: Annotated[dict[FileName, JsonValue], Field(max_length=64)] = {}


class CurvePoint(Strict):
    """One ratio of a restoration sweep, as declared: means of the strata on the test facts."""

    ratio: Annotated[float, Field(ge=0, le=100)]
    of_changed: Annotated[float, Field(ge=0, le=100)]
    id: Annotated[float, Field(ge=0, le=1)] | None
    ood: Annotated[float, Field(ge=0, le=1)] | None
