"""From two checkpoints to recipes, and recipes checked against checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from sftknow_eval.drift.change import measure
from sftknow_eval.drift.scan import Ranking
from sftknow_eval.drift.tensors import BLOCK, checksum
from sftknow_eval.drift.threads import for_each
from sftknow_eval.models import SAFETENSORS_BITS, is_adapter, locate_model
from sftknow_eval.restoration.checkpoint import Checkpoint, ModelWeights
from sftknow_eval.restoration.pair import MatchedPair
from sftknow_eval.restoration.recipe import Recipe, Source, recipes_of
from sftknow_eval.restoration.regions import Region

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # what is done, elements done just now, of how many


def silent(task: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class ModelName:
    """A local folder or a hub id with a revision."""

    name: str
    revision: str | None = None


@contextlib.contextmanager
def opened(base: ModelName, finetuned: ModelName) -> Iterator[tuple[Checkpoint, ModelWeights]]:
    """Open a base and its fine-tune; an adapter is merged as it is read.

    Raises:
        ModelError: a model is unknown or has no safetensors weights.
        CheckpointError: weight files are incomplete or not true.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Checkpoint.open(locate_model(base.name, base.revision)))
        folder = locate_model(finetuned.name, finetuned.revision)
        if is_adapter(folder):
            from sftknow_eval.restoration.adapter import MergedAdapter

            yield first, MergedAdapter(first, folder)
        else:
            yield first, stack.enter_context(Checkpoint.open(folder))


def checksums(model: ModelWeights, names: Sequence[str]) -> dict[str, str]:
    """Return the checksum of each of a model's tensors, of any type."""
    found: dict[str, str] = {}

    def work(buffer: np.ndarray[tuple[int], np.dtype[np.uint8]], _: int, name: str) -> None:
        tensor = model.tensors[name]
        digests = []
        for start in range(0, tensor.elements, BLOCK):
            bits = SAFETENSORS_BITS[tensor.dtype]
            first, last = start * bits // 8, min(start + BLOCK, tensor.elements) * bits // 8
            model.read(name, first, buffer[: last - first])
            digests.append(xxhash.xxh3_64_intdigest(buffer[: last - first].data))
        found[name] = checksum(digests)

    for_each(names, lambda: np.empty(8 * BLOCK, np.uint8), work)
    return {name: found[name] for name in names}  # threads end in any order


def fingerprint(model: ModelWeights, known: Mapping[str, str]) -> str:
    """Return the recipe's fingerprint of a model from its tensors' checksums."""
    lines = [
        f"{name} {tensor.dtype} {list(tensor.shape)} {known[name]}"
        for name, tensor in sorted(model.tensors.items())
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def make_recipes(
    pair: MatchedPair,
    names: tuple[ModelName, ModelName],
    region: Region,
    ratios: Sequence[float],
    ranking: Ranking,
    progress: Progress = silent,
    threads: int | None = None,
) -> list[Recipe]:
    """Rank the region's elements and return one recipe for each ratio.

    Raises:
        CheckpointError: a value in the region is not finite.
    """
    total = sum(tensor.common for tensor in pair.tensors)
    change = measure(
        *(pair.base, pair.finetuned, pair.tensors, ratios, ranking),
        threads=threads,
        progress=lambda done: progress("Ranking", done, total),
    )
    for name in change.inexact:
        logger.warning(
            "'%s': some base values are not exact in the fine-tune's type %s; a restored element "
            "is the base's value rounded to it.",
            name,
            pair.finetuned.tensors[name].dtype,
        )
    compared = [tensor.name for tensor in change.tensors]
    known_base = dict(
        zip((t.base_name for t in change.tensors), change.base_checksums, strict=True)
    )
    known = dict(zip(compared, change.finetuned_checksums, strict=True))
    known |= {twin: known[name] for twin, name in pair.twins.items()}
    known_base |= checksums(
        pair.base, [n for n in sorted(pair.base.tensors) if n not in known_base]
    )
    others = checksums(
        pair.finetuned, [n for n in sorted(pair.finetuned.tensors) if n not in known]
    )
    sources = (
        Source(**vars(names[0]), fingerprint=fingerprint(pair.base, known_base)),
        Source(**vars(names[1]), fingerprint=fingerprint(pair.finetuned, known | others)),
    )
    return recipes_of(change, region, sources, pair.twins, others)


def check_recipe(recipe: Recipe, pair: MatchedPair) -> None:
    """Refuse checkpoints that are not the recipe's own.

    Raises:
        CheckpointError: names the first tensor that differs.
    """
    compared = {tensor.name: tensor for tensor in pair.tensors}
    if not recipe.restored:
        return
    for name in sorted(compared.keys() ^ recipe.tensors.keys()):
        raise recipe.mismatch(name, "fine-tune")
    base = checksums(pair.base, sorted({tensor.base_name for tensor in pair.tensors}))
    known = checksums(pair.finetuned, sorted(pair.finetuned.tensors))
    for name, tensor in sorted(recipe.tensors.items()):
        if base[compared[name].base_name] != tensor.base:
            raise recipe.mismatch(name, "base")
        if known[name] != tensor.finetuned:
            raise recipe.mismatch(name, "fine-tune")
    for name in sorted(known.keys() - recipe.tensors.keys() - recipe.twins.keys()):
        if recipe.others.get(name) != known[name]:
            raise recipe.mismatch(name, "fine-tune")
