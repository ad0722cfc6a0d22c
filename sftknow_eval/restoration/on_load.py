"""Restoration while a model loads: what the lm-eval models and vLLM's loader share.

A `Choice` says what to restore, in the words of a model's arguments. A `Blender` restores
tensors by name as they pass on their way from the files into a model, one at a time, and
reports what it handed over. A report of a load that failed does not exist.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.artifacts import cache_dir, digest
from sftknow_eval.drift.scan import ARITHMETICS, ORDERS, Ranking
from sftknow_eval.drift.tensors import Array, tensor_checksum
from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.restoration.checkpoint import Checkpoint
from sftknow_eval.restoration.mask import Mask
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.regions import REGIONS, Region, parse_layers
from sftknow_eval.restoration.restore import RestorationSource
from sftknow_eval.restoration.run import ModelName, make_recipes, opened

if TYPE_CHECKING:
    import torch

    from sftknow_eval.restoration.canary import Expectation


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to restore, by the names of model arguments.

    Exactly one of `ratio`, `recipe` and `mask` is given; the others of the attributes go with
    `ratio`.

    Attributes:
        base: local folder or hub id of the base.
        base_revision: of a hub id.
        ratio: percent of the region's elements.
        recipe: file of a recipe.
        mask: file of a mask.
        region, layers, order, order_seed, arithmetic: as for `sftknow restore`.
    """

    base: str
    base_revision: str | None = None
    ratio: float | None = None
    recipe: str | None = None
    mask: str | None = None
    region: str = "transformer"
    layers: str | int | None = None
    order: str = "top"
    order_seed: int = 0
    arithmetic: str = "float32"

    def __post_init__(self) -> None:
        given = [n for n in ("ratio", "recipe", "mask") if getattr(self, n) is not None]
        if len(given) != 1:
            raise SettingsError(
                "Say what to restore by exactly one of ratio=PERCENT, recipe=FILE and mask=FILE; "
                f"given: {', '.join(given) or 'none'}."
            )
        if self.ratio is not None:
            _check_ratio(self.ratio)
        known = {"region": REGIONS, "order": ORDERS, "arithmetic": ARITHMETICS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise SettingsError(
                    f"Unknown {name} '{getattr(self, name)}'; known: {', '.join(values)}."
                )

    @classmethod
    def taken_from(cls, arguments: Mapping[str, Any]) -> tuple[Choice, dict[str, Any]]:
        """Return the choice that a model's arguments make, and the arguments left.

        Raises:
            SettingsError: not one of ratio, recipe and mask, or an unknown region or order.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        ours = {name: value for name, value in arguments.items() if name in names}
        return cls(**ours), {name: v for name, v in arguments.items() if name not in names}

    def given(self) -> dict[str, Any]:
        """Return the arguments that are not at their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def base_folder(self) -> Path:
        """Return the base's folder."""
        return locate_model(self.base, self.base_revision)

    def recipes(
        self, finetuned: str, revision: str | None, ratios: Sequence[float]
    ) -> list[Recipe]:
        """Return a recipe for each ratio, from one pass over the files."""
        for ratio in ratios:
            _check_ratio(ratio)
        layers = parse_layers(str(self.layers)) if self.layers is not None else None
        region = Region.model_validate({"name": self.region, "layers": layers})
        ranking = Ranking(self.order, self.arithmetic, int(self.order_seed))
        names = ModelName(self.base, self.base_revision), ModelName(finetuned, revision)
        with opened(*names) as (base, model):
            return make_recipes(match(base, model, region), names, region, ratios, ranking)

    def settled(self, finetuned: str, revision: str | None) -> Choice:
        """Return the same choice with its ratio turned into a recipe, kept in the cache.

        So the workers of an engine need not rank the elements, each for itself.
        """
        if self.ratio is None:
            return self
        marks = [
            weight_fingerprint(folder)
            for folder in (self.base_folder(), locate_model(finetuned, revision))
        ]
        unnamed = {k: v for k, v in self.given().items() if not k.startswith("base")}
        path = cache_dir() / "recipes" / f"{digest([marks, unnamed])}.json"
        if not path.is_file():
            self.recipes(finetuned, revision, [self.ratio])[0].write(path)
        return Choice(base=self.base, base_revision=self.base_revision, recipe=str(path))

    def restoration(self, finetuned: str, revision: str | None) -> Recipe | Mask:
        """Return the recipe or mask."""
        if self.mask is not None:
            return Mask(Path(self.mask))
        settled = self.settled(finetuned, revision)
        assert settled.recipe is not None
        return Recipe.read(Path(settled.recipe))


def _check_ratio(ratio: float) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 100:
        raise SettingsError(f"The ratio is {ratio!r}; expected percent, from 0 to 100.")


@dataclass(frozen=True)
class LoadReport:
    """What a loader handed to a model.

    Attributes:
        restoration: digest of the recipe or mask.
        kind: `recipe` or `mask`.
        ratio: of the recipe.
        checksum: over names and checksums of all tensors: of what a restored checkpoint holds.
        changed_tensors: tensors in which at least one bit came back.
        tensors: checksum of each tensor as handed over, in its stored type.
        canary: checksum of what the model computes with, once that has been checked.
    """

    restoration: str
    kind: str
    ratio: float | None
    checksum: str
    changed_tensors: int
    tensors: Mapping[str, str]
    canary: str | None = None

    def record(self) -> dict[str, Any]:
        """Return what goes into the results of an evaluation."""
        return {
            name: value for name, value in dataclasses.asdict(self).items() if name != "tensors"
        }


def checksum_of(tensors: Mapping[str, str]) -> str:
    """Return one checksum over the tensors' names and checksums."""
    lines = [f"{name} {checksum}" for name, checksum in sorted(tensors.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Blender:
    """Restores tensors on their way into a model; close it, or use `with`.

    Args:
        base: folder of the base.
        finetuned: folder of the fine-tune that is loaded.
        restoration: which elements go back.
        expectation: notes what the model has to compute with, if given.
    """

    def __init__(
        self,
        base: Path,
        finetuned: Path,
        restoration: Recipe | Mask,
        expectation: Expectation | None = None,
    ) -> None:
        self.restoration = restoration
        self.expectation = expectation
        self._source = RestorationSource(base, restoration)
        self._finetuned = Checkpoint.open(finetuned)
        self._buffer = np.empty(0, np.uint8)
        # One tensor of the base in memory at a time, however many threads load.
        self._turn = threading.Lock()
        self._tensors: dict[str, str] = {}
        self._changed: set[str] = set()

    @property
    def files(self) -> list[Path]:
        """The fine-tune's weight files."""
        return [self._finetuned.folder / name for name in self._finetuned.files]

    def blend(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return the restored tensor of a name in the fine-tune's checkpoint.

        Raises:
            CheckpointError: a tensor is not the restoration's own, or cannot be read.
        """
        with self._turn:
            restored = self._restored(name, tensor)
            checksum = torch_checksum(restored)
            if restored is not tensor and checksum != self._checksum_before(name, tensor):
                self._changed.add(name)
            elif restored is tensor:
                self._check_untouched(name, checksum)
            self._tensors[name] = checksum
            if self.expectation is not None:
                self.expectation.add(name, restored, checked=restored is not tensor)
            return restored

    def _restored(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        stored = self._finetuned.tensors.get(name)
        if name not in self._source.names or stored is None:
            return self._source.restore(name, tensor)
        # Engines hand over tensors that are mapped from the file. To read one into a buffer that
        # is used again costs a third of what its first look through the mapping does.
        if self._buffer.size < stored.nbytes:
            self._buffer = np.empty(stored.nbytes, np.uint8)
        own = torch_tensor(self._finetuned.array(name, self._buffer), stored.dtype)
        if own.shape != tensor.shape or own.dtype != tensor.dtype:
            raise CheckpointError(
                f"The engine loads '{name}' as {tensor.dtype} {list(tensor.shape)}, but it is "
                f"stored as {own.dtype} {list(own.shape)} in {self._finetuned.folder}. Write the "
                "restored model with 'sftknow restore' and load that."
            )
        return self._source.restore(name, own)

    def _checksum_before(self, name: str, tensor: torch.Tensor) -> str:
        if isinstance(self.restoration, Recipe):
            found = self.restoration.tensor(name)
            assert found is not None
            return found[1].finetuned  # the restoration has compared it
        return torch_checksum(tensor)

    def _check_untouched(self, name: str, checksum: str) -> None:
        if not isinstance(self.restoration, Recipe):
            return
        wanted = self.restoration.others.get(name)
        ranked = self.restoration.tensors.get(name)
        wanted = ranked.finetuned if ranked is not None else wanted
        if wanted is not None and wanted != checksum:
            raise self.restoration.mismatch(name, "fine-tune")

    def finish(self) -> LoadReport:
        """Return the report, once every tensor has passed.

        Raises:
            CheckpointError: a tensor to restore never came, or nothing was restored.
        """
        if missing := self._source.missing:
            raise CheckpointError(
                f"{len(missing)} tensors to restore were not loaded, the first is '{missing[0]}'. "
                "The engine leaves them out, so it cannot hold the restored model. Choose another "
                "region, or write the restored model with 'sftknow restore'."
            )
        if not self._changed and self._must_change():
            raise CheckpointError(
                "The restoration changed no weight at all: base and fine-tune hold the same. "
                "Check that 'base' is the base and 'pretrained' the fine-tune."
            )
        recipe = self.restoration if isinstance(self.restoration, Recipe) else None
        return LoadReport(
            restoration=self.restoration.digest,
            kind="recipe" if recipe else "mask",
            ratio=recipe.ratio if recipe else None,
            checksum=checksum_of(self._tensors),
            changed_tensors=len(self._changed),
            tensors=dict(self._tensors),
        )

    def _must_change(self) -> bool:
        """Say whether a restoration without effect can only be a mistake.

        A ratio of zero is meant to do nothing, and the least changed or random elements may
        be unchanged ones.
        """
        if not isinstance(self.restoration, Recipe):
            return True
        return self.restoration.ratio > 0 and self.restoration.order == "top"

    def close(self) -> None:
        """Close the files."""
        self._source.close()
        self._finetuned.close()

    def __enter__(self) -> Blender:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def torch_tensor(array: Array, dtype: str) -> torch.Tensor:
    """Return an array (bfloat16 as uint16) as a tensor over the same memory."""
    import torch

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    return torch.from_numpy(array.view(f"i{array.itemsize}")).view(types[dtype])


def torch_checksum(tensor: torch.Tensor) -> str:
    """Return the checksum of a tensor's bytes, equal to that of the same tensor on disk."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    bits: np.ndarray[Any, Any] = flat.view(whole[flat.element_size()]).numpy()
    return tensor_checksum(bits)
