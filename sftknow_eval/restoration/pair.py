"""A base and its fine-tune, matched tensor by tensor before anything is compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sftknow_eval.drift.tensors import HELD_AS, Compared, tensor_checksum
from sftknow_eval.errors import CheckpointError
from sftknow_eval.restoration.checkpoint import ModelWeights, StoredTensor
from sftknow_eval.restoration.regions import Part, Region, check_type, part_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MatchedPair:
    """Two models of one architecture and the region to compare.

    Attributes:
        base: the base.
        finetuned: the fine-tune.
        tensors: the region, each tensor once.
        twins: tensors that are stored a second time, and the name under which they are compared.
        notes: what a user should know, one sentence each.
    """

    base: ModelWeights
    finetuned: ModelWeights
    tensors: tuple[Compared, ...]
    twins: Mapping[str, str]
    notes: tuple[str, ...]


def match(base: ModelWeights, finetuned: ModelWeights, region: Region) -> MatchedPair:
    """Pair the region's tensors of two models.

    Raises:
        CheckpointError: another architecture, a tensor that only one has, other shapes, or a
            type that cannot be compared.
        SettingsError: the region selects nothing.
    """
    _check_architecture(base, finetuned)
    for model in (base, finetuned):
        _check_quantisation(model)
    parts = region.select(finetuned.tensors, str(finetuned.folder))
    twins = _twins(finetuned, parts)
    compared, notes = [], []
    for name, part in parts.items():
        if name in twins:
            notes.append(f"'{name}' is tied to '{twins[name]}' and counted once.")
            continue
        other = base.tensors[_base_name(base, finetuned, name)]
        tensor = finetuned.tensors[name]
        _check_shapes(base, tensor, other, part)
        check_type(other, str(base.folder))
        if tensor.elements > other.elements:
            added = tensor.shape[0] - other.shape[0]
            notes.append(
                f"'{name}' has {added} more rows than the base: the {other.shape[0]} rows in "
                "common are compared, the new rows are kept."
            )
        compared.append(
            Compared(
                *(name, other.name, tensor.dtype, other.dtype, tensor.elements, other.elements),
                *(part.layer, part.module),
            )
        )
    if region == Region(name=region.name):
        _check_completeness(base, finetuned, region, {tensor.base_name for tensor in compared})
    for note in notes:
        logger.info("%s", note)
    return MatchedPair(base, finetuned, tuple(compared), twins, tuple(notes))


def _check_architecture(base: ModelWeights, finetuned: ModelWeights) -> None:
    one, other = base.config.get("model_type"), finetuned.config.get("model_type")
    if one != other:
        raise CheckpointError(
            f"{base.folder} and {finetuned.folder} are different architectures: their model_type "
            f"is {one!r} and {other!r}. Give the very base that the fine-tune began with."
        )


def _check_quantisation(model: ModelWeights) -> None:
    method = model.config.get("quantization_config")
    if method:
        kind = method.get("quant_method", "unknown") if isinstance(method, dict) else "unknown"
        odd = [
            name for name, tensor in sorted(model.tensors.items()) if tensor.dtype not in HELD_AS
        ]
        raise CheckpointError(
            f"{model.folder} is quantised (method '{kind}'"
            f"{f', as in tensor {odd[0]!r} of type {model.tensors[odd[0]].dtype}' if odd else ''})"
            ". Quantised weights cannot be compared: give the unquantised checkpoint."
        )


def _prefixes(model: ModelWeights) -> set[str]:
    return {name.split(".", 1)[0] + "." for name in model.tensors if "." in name}


def _base_name(base: ModelWeights, finetuned: ModelWeights, name: str) -> str:
    """Return the base's name of a tensor: the same, or with one prefix more or less.

    A model saved without its head drops the prefix (`transformer.h.0...` and `h.0...`). An
    output head that the base ties to its embedding is that embedding.
    """
    candidates = [name, name.split(".", 1)[-1], *(p + name for p in sorted(_prefixes(base)))]
    found = [candidate for candidate in dict.fromkeys(candidates) if candidate in base.tensors]
    if found:
        return found[0]
    part = part_of(name, finetuned.tensors[name].shape)
    if part.role == "output" and base.config.get("tie_word_embeddings"):
        for other, tensor in sorted(base.tensors.items()):
            if _is_token_embedding(other, tensor, finetuned.tensors[name].shape):
                return other
    raise CheckpointError(
        f"The base {base.folder} has no tensor '{name}', which the fine-tune {finetuned.folder} "
        "holds. Give the very base that the fine-tune began with, or leave the tensor out with "
        f"--exclude '{name}'."
    )


def _is_token_embedding(name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> bool:
    if part_of(name, tensor.shape).role != "embedding" or len(tensor.shape) != len(shape):
        return False
    return tensor.shape[1:] == shape[1:] and "position" not in name and "wpe" not in name


def _twins(model: ModelWeights, parts: Mapping[str, Part]) -> dict[str, str]:
    """Find output heads that are stored although the model ties them to its embedding."""
    if not model.config.get("tie_word_embeddings"):
        return {}
    twins = {}
    for name in [name for name, part in parts.items() if part.role == "output"]:
        head = model.tensors[name]
        for other in parts:
            tensor = model.tensors[other]
            if tensor.dtype != head.dtype or tensor.shape != head.shape or other == name:
                continue
            if not _is_token_embedding(other, tensor, head.shape):
                continue
            if _checksum(model, name) == _checksum(model, other):
                twins[name] = other
    return twins


def _checksum(model: ModelWeights, name: str) -> str:
    return tensor_checksum(model.layout.array(name))


def _check_shapes(
    base: ModelWeights, tensor: StoredTensor, other: StoredTensor, part: Part
) -> None:
    if tensor.shape == other.shape:
        return
    vocabulary = part.role in ("embedding", "output")
    grown = len(tensor.shape) == len(other.shape) and tensor.shape[1:] == other.shape[1:]
    if vocabulary and grown and tensor.shape[0] > other.shape[0]:
        return
    raise CheckpointError(
        f"Tensor '{tensor.name}' has shape {list(tensor.shape)}, but {list(other.shape)} in the "
        f"base {base.folder}. Only a vocabulary may have grown: give the very base that the "
        "fine-tune began with."
    )


def _check_completeness(
    base: ModelWeights, finetuned: ModelWeights, region: Region, used: set[str]
) -> None:
    tied = base.config.get("tie_word_embeddings")
    for name, part in region.select(base.tensors, str(base.folder)).items():
        if name not in used and not (tied and part.role == "output"):
            raise CheckpointError(
                f"The fine-tune {finetuned.folder} has no tensor '{name}', which the base "
                f"{base.folder} holds. Give the very base that the fine-tune began with."
            )
