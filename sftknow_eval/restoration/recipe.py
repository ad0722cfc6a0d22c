"""The recipe: a few kilobytes that say exactly which elements go back to the base.

A recipe holds the threshold as exact bits and a quota of ties for each tensor, so that any
tensor can be restored alone, in any order, on any machine. It also holds a checksum of
every tensor, so that it cannot be applied to other weights than its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

from sftknow_eval.artifacts import atomic_path, read_json
from sftknow_eval.errors import CheckpointError, DataError, SettingsError
from sftknow_eval.restoration.regions import Region

if TYPE_CHECKING:
    from sftknow_eval.drift.change import Change
    from sftknow_eval.drift.scan import Ranking

VERSION = 1
Checksum = str
Order = Literal["top", "bottom", "random"]
Arithmetic = Literal["float32", "bfloat16"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A checkpoint that a recipe belongs to.

    Attributes:
        name: folder name or hub id, for people; nothing depends on it.
        revision: of a hub id.
        fingerprint: SHA-256 over name, type, shape and checksum of every tensor.
    """

    name: str
    revision: str | None = None
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")


class TensorRecipe(_Strict):
    """One tensor of the region.

    Attributes:
        base_name: the base's name of the tensor, if another.
        elements: elements that both checkpoints have (the first ones of the tensor).
        restored: elements that go back to the base's value.
        tied: elements whose key equals the threshold.
        quota: how many of the tied elements are restored, the first ones by flat index.
        base: checksum of the base's whole tensor.
        finetuned: checksum of the fine-tune's whole tensor.
    """

    base_name: str | None = None
    elements: int = Field(ge=0)
    restored: int = Field(default=0, ge=0)
    tied: int = Field(default=0, ge=0)
    quota: int = Field(default=0, ge=0)
    base: Checksum
    finetuned: Checksum

    @model_validator(mode="after")
    def _consistent(self) -> TensorRecipe:
        if not self.quota <= self.restored <= self.elements or self.quota > self.tied:
            raise ValueError("quota <= restored <= elements and quota <= tied must hold")
        return self


class Recipe(_Strict):
    """Which elements of a fine-tune go back to the base.

    Attributes:
        base: the base.
        finetuned: the fine-tune.
        region: the tensors that were ranked together.
        order: `top`, `bottom` or `random`.
        seed: of the order `random`.
        arithmetic: of the relative change.
        ratio: percent of the region's elements.
        elements: of the region.
        changed: elements with a relative change above zero.
        restored: floor(elements * ratio / 100); zero where nothing changed.
        effective_restored: restored elements with a relative change above zero.
        threshold: bits of the key at the border, `0x` and eight digits; for the order `top`
            the float32 relative change.
        tensors: the region's tensors by name; empty if nothing is restored.
        twins: tensors stored a second time, and the name of the tensor they equal.
        others: checksums of the fine-tune's tensors outside the region.

    Source: section 5 and appendix B.2 of the paper; ties as in protocol, "Choices".
    """

    format: Literal["sftknow-recipe"] = "sftknow-recipe"
    version: Literal[1] = 1
    base: Source
    finetuned: Source
    region: Region
    order: Order = "top"
    seed: int | None = None
    arithmetic: Arithmetic = "float32"
    ratio: float = Field(ge=0, le=100)
    elements: int = Field(ge=0)
    changed: int = Field(ge=0)
    restored: int = Field(ge=0)
    effective_restored: int = Field(ge=0)
    threshold: str | None = Field(default=None, pattern=r"^0x[0-9a-f]{8}$")
    tensors: dict[str, TensorRecipe] = {}
    twins: dict[str, str] = {}
    others: dict[str, Checksum] = {}

    @property
    def changed_fraction(self) -> float:
        """Share of the region's elements that changed at all."""
        return self.changed / self.elements if self.elements else 0.0

    @property
    def saturated(self) -> bool:
        """Whether every changed element is restored, so that a larger ratio does nothing."""
        return self.effective_restored == self.changed

    @property
    def ranking(self) -> Ranking:
        """Order, arithmetic and seed."""
        from sftknow_eval.drift.scan import Ranking

        return Ranking(self.order, self.arithmetic, self.seed or 0)

    @property
    def key(self) -> int:
        """The threshold as a number."""
        return int(self.threshold, 16) if self.threshold else (1 << 31) - 1

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The fine-tune's names of all tensors that change, tied ones included."""
        known = (*self.tensors, *self.twins)
        return frozenset(name for name in known if self.tensor(name) is not None)

    def ranked_name(self, name: str) -> str:
        """Return the name under which a tensor was ranked: another if it is tied."""
        return self.twins.get(name, name)

    def tensor(self, name: str) -> tuple[str, TensorRecipe] | None:
        """Return under which name a tensor was ranked, and its recipe; None if it stays."""
        ranked = self.ranked_name(name)
        found = self.tensors.get(ranked)
        return None if found is None or not found.restored else (ranked, found)

    def base_name(self, name: str) -> str:
        """Return the base's name of a tensor of the region."""
        ranked = self.ranked_name(name)
        return self.tensors[ranked].base_name or ranked

    def mismatch(self, name: str, role: str) -> CheckpointError:
        """Return the error for a tensor that is not the recipe's own."""
        source = self.base if role == "base" else self.finetuned
        return CheckpointError(
            f"This recipe belongs to other weights: tensor '{name}' of the {role} differs from "
            f"that of '{source.name}', for which the recipe was made. Use that checkpoint, or "
            "make a new recipe with `sftknow restore BASE FINETUNED --recipe-only`."
        )

    def write(self, path: Path) -> None:
        """Write the recipe as JSON, whole or not at all."""
        # Of a small model, Python's own encoder took a twentieth of all the time.
        with atomic_path(path) as partial:
            partial.write_bytes(to_json(self.as_json(), indent=2) + b"\n")

    def as_json(self) -> dict[str, Any]:
        """Return the recipe as written: by name, tensors without fields at their defaults."""
        value = self.model_dump(mode="json")
        value["tensors"] = {
            name: tensor.model_dump(mode="json", exclude_defaults=True)
            for name, tensor in sorted(self.tensors.items())
        }
        for field in ("twins", "others"):
            value[field] = dict(sorted(value[field].items()))
        return value

    @property
    def digest(self) -> str:
        """SHA-256 of what the recipe does, without the checkpoints' names."""
        value = self.as_json()
        for side in ("base", "finetuned"):
            value[side] = value[side]["fingerprint"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe.

        Raises:
            SettingsError: the file is missing or not a recipe of a known version.
        """
        try:
            value = read_json(path)
            version = value.get("version") if isinstance(value, dict) else None
            if isinstance(version, int) and version > VERSION:
                raise SettingsError(
                    f"{path} is a recipe of version {version}; this release knows versions up to "
                    f"{VERSION}. Update sftknow-eval."
                )
            return cls.model_validate(value)
        except DataError as error:
            raise SettingsError(f"No recipe: {error}") from error
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise SettingsError(f"{path} is not a recipe: {faults}") from error


def recipes_of(
    change: Change,
    region: Region,
    sources: tuple[Source, Source],
    twins: Mapping[str, str],
    others: Mapping[str, Checksum],
) -> list[Recipe]:
    """Turn what one pass found into one recipe for each ratio."""
    ranking = change.ranking
    recipes = []
    for ratio, cut, effective in zip(change.ratios, change.cuts, change.effective, strict=True):
        restores = bool(change.changed) and cut.wanted > 0
        tensors = {
            tensor.name: TensorRecipe(
                base_name=tensor.base_name if tensor.base_name != tensor.name else None,
                elements=tensor.common,
                restored=int(cut.restored_T[t]),
                tied=int(cut.tied_T[t]),
                quota=int(cut.quota_T[t]),
                base=change.base_checksums[t],
                finetuned=change.finetuned_checksums[t],
            )
            for t, tensor in enumerate(change.tensors)
        }
        recipes.append(
            Recipe(
                base=sources[0],
                finetuned=sources[1],
                region=region,
                order=cast(Order, ranking.order),
                seed=ranking.seed if ranking.order == "random" else None,
                arithmetic=cast(Arithmetic, ranking.arithmetic),
                ratio=ratio,
                elements=change.elements,
                changed=change.changed,
                restored=cut.wanted if restores else 0,
                effective_restored=effective if restores else 0,
                threshold=f"0x{cut.threshold:08x}" if restores else None,
                tensors=tensors if restores else {},
                twins=dict(twins) if restores else {},
                others=dict(others) if restores else {},
            )
        )
    return recipes
