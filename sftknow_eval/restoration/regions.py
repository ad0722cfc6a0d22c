"""Which tensors take part, by what a module does and not by one family's names.

A name such as `model.layers.3.self_attn.q_proj.weight` or `h.3.attn.c_attn.weight` is split
into a layer number and a place within the layer; the words in it tell the role. Seen to
hold for Llama, Qwen, Mistral, Mixtral, Gemma, GPT-2, GPT-NeoX, OPT and their like.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from sftknow_eval.drift.tensors import HELD_AS
from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.restoration.checkpoint import StoredTensor

RegionName = Literal["transformer", "attention", "mlp", "embedding", "all"]
REGIONS: tuple[str, ...] = get_args(RegionName)

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.(.+)$")
_TOWER = re.compile(r"(?:^|\.)(vision|visual|audio|image)[^.]*\.")
# Not parameters: causal masks and rotary frequencies that older checkpoints carry along.
_BUFFER = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids|rope_freqs)$")
_CAUSAL_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
_NORM = re.compile(r"norm|(^|\.)ln(_|\.|$)|(^|_)layernorm")
_ATTENTION = re.compile(r"(^|\.|_)(attn|attention|self_attn|self_attention)(\.|_|$)")
_MLP = re.compile(
    r"(^|\.|_)(mlp|ffn|feed_forward|moe|experts?|fc1|fc2|fc_in|fc_out|router)(\.|_|$)"
)
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output)(\.|$)")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|embed_positions|wte|wpe|word_embeddings|tok_embeddings|"
    r"position_embeddings|embeddings?)(\.|$)"
)


@dataclass(frozen=True)
class Part:
    """What a tensor is: its layer, its place there, and its role.

    The role is one of attention, mlp, other (all three within a layer), norm, embedding,
    output, buffer, tower (of another modality) and outside (any other tensor).
    """

    layer: int | None
    module: str
    role: str


@functools.lru_cache(maxsize=1 << 14)
def part_of(name: str, shape: tuple[int, ...]) -> Part:
    """Tell layer, module and role of a tensor from its name."""
    match = _LAYER.search(name)
    layer, place = (int(match[1]), match[2]) if match else (None, name)
    module = re.sub(r"\.\d+\.", ".*.", place).removesuffix(".weight")
    if _BUFFER.search(name) or (_CAUSAL_MASK.search(name) and len(shape) > 1):
        role = "buffer"
    elif _TOWER.search(name):
        return Part(None, name.removesuffix(".weight"), "tower")
    elif _NORM.search(place):
        role = "norm"
    elif layer is not None:
        role = "attention" if _ATTENTION.search(place) else "other"
        role = "mlp" if role == "other" and _MLP.search(place) else role
    elif _OUTPUT.search(name):
        role = "output"
    else:
        role = "embedding" if _EMBEDDING.search(name) else "outside"
    return Part(layer, module, role)


_ROLES = {
    "transformer": {"attention", "mlp", "other"},
    "attention": {"attention"},
    "mlp": {"mlp"},
    "embedding": {"embedding", "output"},
    "all": {"attention", "mlp", "other", "embedding", "output", "tower", "outside"},
}


class Region(BaseModel):
    """A choice of tensors.

    Attributes:
        name: `transformer` is the paper's: all weights of the layers except norms.
        layers: only these layers, if given.
        include: patterns of names to take as well, such as `*.input_layernorm.weight`.
        exclude: patterns of names to leave out; they win.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RegionName = "transformer"
    layers: tuple[int, ...] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @field_validator("layers")
    @classmethod
    def _sorted(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if layers is None else tuple(sorted(set(layers)))

    def holds(self, name: str, part: Part) -> bool:
        """Say whether a tensor belongs to the region."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        if any(fnmatchcase(name, pattern) for pattern in self.include):
            return True
        return part.role in _ROLES[self.name] and (self.layers is None or part.layer in self.layers)

    def select(self, tensors: Mapping[str, StoredTensor], where: str) -> dict[str, Part]:
        """Return the region's tensors, sorted by name.

        Raises:
            SettingsError: nothing is selected, or a layer or pattern fits nothing.
            CheckpointError: a selected tensor is quantised or of another type than
                bfloat16, float16 and float32.
        """
        parts = {name: part_of(name, tensor.shape) for name, tensor in sorted(tensors.items())}
        self._check(parts, where)
        chosen = {name: part for name, part in parts.items() if self.holds(name, part)}
        if not chosen:
            raise SettingsError(
                f"The region '{self.name}'{self._details()} selects no tensor of {where}. Names "
                f"seen: {_few(names_seen(tensors))}. Choose another region, or name the tensors "
                "with --include."
            )
        for name in chosen:
            check_type(tensors[name], where)
        return chosen

    def _check(self, parts: Mapping[str, Part], where: str) -> None:
        there = {part.layer for part in parts.values() if part.layer is not None}
        missing = sorted(set(self.layers or ()) - there)
        if missing and there:
            raise SettingsError(
                f"{where} has no layer {missing[0]}: its layers are {min(there)} to {max(there)}."
            )
        for pattern in (*self.include, *self.exclude):
            if not any(fnmatchcase(name, pattern) for name in parts):
                raise SettingsError(
                    f"The pattern '{pattern}' fits no tensor of {where}. Names seen: "
                    f"{_few(names_seen(parts))}."
                )

    def _details(self) -> str:
        details = f" in layers {', '.join(map(str, self.layers))}" if self.layers else ""
        return details + (f" without {', '.join(self.exclude)}" if self.exclude else "")


def check_type(tensor: StoredTensor, where: str) -> None:
    """Refuse tensors that are not bfloat16, float16 or float32.

    Raises:
        CheckpointError: names the tensor and its type.
    """
    if tensor.dtype not in HELD_AS:
        raise CheckpointError(
            f"{where}: tensor '{tensor.name}' has the type {tensor.dtype}. Only bfloat16, float16 "
            "and float32 can be compared: give an unquantised checkpoint in one of these types, "
            f"or leave the tensor out with --exclude '{tensor.name}'."
        )


def names_seen(names: Iterable[str]) -> list[str]:
    """Return the distinct names with every number replaced by a star."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})


def _few(names: Sequence[str], count: int = 30) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def parse_layers(text: str) -> tuple[int, ...]:
    """Read `0-3,7` as layers 0, 1, 2, 3 and 7.

    Raises:
        SettingsError: the text is not a list of numbers and ranges.
    """
    layers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SettingsError(f"--layers {text!r}: expected numbers and ranges such as 0-3,7.")
        layers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(layers))
