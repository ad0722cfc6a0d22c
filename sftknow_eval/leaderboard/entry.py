"""What a submission is listed, grouped and compared with others by: a small part of its manifest.

A build that knows a submission from before needs no more of it, and does not read its manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from sftknow_eval.leaderboard.manifest import MANIFEST_NAME, Control, Manifest, SeedRun


@dataclass(frozen=True, slots=True)
class SeedEntry:
    """By what a seed is told from those of other rows.

    Attributes:
        files: its evidence, recipe and training data, below the submission's folder.
        outputs: digest of its outputs; None without evidence.
        weights: fingerprint of the weights before any restoration.
        checksum: the same weights as recipes recognise them.
        restored: digests of the recipe and the mask.
        same_as: row and seed that are declared to give the same outputs.
    """

    seed: int
    files: tuple[str, ...]
    outputs: str | None
    weights: str
    checksum: str | None
    restored: str
    same_as: tuple[str, int] | None

    @classmethod
    def of(cls, run: SeedRun) -> SeedEntry:
        """Return the entry of a seed."""
        recipe = run.recipe
        named = (
            ("evidence", "parquet", run.evidence),
            ("recipes", "json", recipe and recipe.sha256),
            ("training", "jsonl", run.training.sha256),
        )
        return cls(
            seed=run.seed,
            files=tuple(f"{top}/seed-{run.seed}.{end}" for top, end, digest in named if digest),
            outputs=run.outputs,
            weights=run.weights.fingerprint,
            checksum=run.weights.checksum,
            restored=f"{recipe.digest or ''}+{recipe.mask or ''}" if recipe else "",
            same_as=(run.same_as.row, run.same_as.seed) if run.same_as else None,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A submission among others.

    Attributes:
        row: its id.
        regime, regime_label: key of the data regime, and the same in words.
        stratum, n: of the regime.
        created: the date, as in ISO 8601.
        swept: whether a seed declares a restoration curve.
    """

    row: str
    benchmark: str
    base: str
    strategy: str
    run: str
    title: str
    control: Control | None
    regime: str
    regime_label: str
    stratum: int | None
    n: int | None
    contact: str
    created: str
    swept: bool
    seeds: tuple[SeedEntry, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return the entry of a manifest."""
        regime = manifest.regime
        return cls(
            row=manifest.row,
            benchmark=manifest.benchmark,
            base=manifest.base.id,
            strategy=manifest.strategy,
            run=manifest.run,
            title=manifest.title,
            control=manifest.control,
            regime=regime.key,
            regime_label=regime.label,
            stratum=regime.stratum,
            n=regime.n,
            contact=manifest.contact,
            created=manifest.created.isoformat(),
            swept=any(run.curve for run in manifest.seeds),
            seeds=tuple(map(SeedEntry.of, manifest.seeds)),
        )

    @property
    def evident(self) -> bool:
        """Whether there is evidence: for every seed, or for none."""
        return self.seeds[0].outputs is not None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the manifest names, and itself."""
        return (MANIFEST_NAME, *(name for seed in self.seeds for name in seed.files))

    def packed(self) -> dict[str, Any]:
        """Return the entry as JSON can hold it."""
        return asdict(self)

    @classmethod
    def unpacked(cls, held: Mapping[str, Any]) -> Self:
        """Return the entry that was packed."""
        seeds = []
        for seed in held["seeds"]:
            same = tuple(seed["same_as"]) if seed["same_as"] else None
            seeds.append(SeedEntry(**{**seed, "files": tuple(seed["files"]), "same_as": same}))
        return cls(**{**held, "seeds": tuple(seeds)})
