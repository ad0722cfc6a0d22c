"""A PEFT LoRA adapter as a fine-tune: each tensor is merged with its base when it is read.

The merge is the one of PEFT's `merge_and_unload` on the CPU, operation by operation, so that
the bits are the same: both factors in float32, their product scaled, added to the base's
weight in place. Only the tensors being read are in memory.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.artifacts import read_json
from sftknow_eval.drift.tensors import HELD_AS, Array
from sftknow_eval.errors import CheckpointError, ModelError
from sftknow_eval.models import ADAPTER_CONFIG, safetensors_header
from sftknow_eval.restoration.checkpoint import Checkpoint, StoredTensor
from sftknow_eval.restoration.regions import part_of

if TYPE_CHECKING:
    import torch

_FACTOR = re.compile(r"^(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?$")
# Options that change what merging means; a plain LoRA has none of them.
_UNSUPPORTED = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication"),
    *("target_parameters", "trainable_token_indices", "alora_invocation_tokens"),
    *("arrow_config", "velora_config", "monteclora_config", "kasa_config"),
)
# Initialisations that also change the base's weights, such as PiSSA, do not merge like this.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_TRANSPOSED_MODELS = {"gpt2", "openai-gpt"}  # their layers are Conv1D: weights lie transposed
_PREFIX = "base_model.model."
_KEPT = 4  # merged tensors in memory: threads read blocks of neighbouring tensors


@dataclass(frozen=True)
class _Factors:
    """The two factors of one weight, by their names in the adapter's file."""

    a: str
    b: str
    scaling: float
    transposed: bool
    embedding: bool


class MergedAdapter:
    """A base with an adapter merged into it, read like a checkpoint."""

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        """Open an adapter.

        Raises:
            ModelError: not a LoRA adapter, or one with an option that is not supported.
            CheckpointError: its tensors do not fit the base.
        """
        self.folder = folder
        self._base = base
        self._settings = _settings(folder)
        path = folder / "adapter_model.safetensors"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no adapter_model.safetensors. Adapters in .bin files are not read "
                "here because unpickling runs code: load the adapter with PEFT and save it with "
                "save_pretrained(..., safe_serialization=True)."
            )
        header, data = safetensors_header(path)
        self._own = {
            name: StoredTensor(
                name, e["dtype"], tuple(e["shape"]), path.name, data + e["data_offsets"][0]
            )
            for name, e in header.items()
        }
        self._factors: dict[str, _Factors] = {}
        self._replaced: dict[str, str] = {}
        for name in sorted(self._own):
            self._sort_in(name)
        self._merged: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def layout(self) -> Checkpoint:
        """The base: a merged model is written in its layout."""
        return self._base

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """The base's tensors: merging changes neither names nor shapes."""
        return self._base.tensors

    @property
    def config(self) -> Mapping[str, Any]:
        """The base's configuration."""
        return self._base.config

    def read(self, name: str, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the merged tensor `name` from byte `offset` on."""
        if self._adapts(name):
            out[:] = self._whole(name)[offset : offset + out.size]
        else:
            self._base.read(name, offset, out)

    def gather(self, name: str, offsets: NDArray[np.int64], out_PN: NDArray[np.uint8]) -> None:
        """Fill row p of `out_PN` with the bytes of tensor `name` from byte `offsets[p]` on."""
        if self._adapts(name):
            out_PN[:] = self._whole(name)[offsets[:, None] + np.arange(out_PN.shape[1])]
        else:
            self._base.gather(name, offsets, out_PN)

    def _adapts(self, name: str) -> bool:
        return name in self._factors or name in self._replaced

    def _whole(self, name: str) -> NDArray[np.uint8]:
        with self._lock:
            merged = self._merged.get(name)
            if merged is None:
                merged = self._merged[name] = self._merge(name)
                while len(self._merged) > _KEPT:
                    self._merged.popitem(last=False)
            return merged

    def _sort_in(self, name: str) -> None:
        match = _FACTOR.match(name)
        if match is None:
            target = self._target(name.removeprefix(_PREFIX).replace(".base_layer.", "."), name)
            if "lora_" in name or self._base.tensors[target].shape != self._own[name].shape:
                raise CheckpointError(
                    f"{self.folder}: the adapter's tensor '{name}' cannot be merged here (shape "
                    f"{list(self._own[name].shape)}). Merge the adapter with PEFT's "
                    "merge_and_unload, save the model and give its folder."
                )
            self._replaced[target] = name
            return
        module, kind = match[1].removeprefix(_PREFIX), match[2]
        if not kind.endswith("_A"):
            return
        other = name.replace(kind, kind[:-1] + "B")
        if other not in self._own:
            raise CheckpointError(f"{self.folder}: the adapter has '{name}' but no '{other}'.")
        target = self._target(f"{module}.weight", name)
        weight, rank = self._base.tensors[target], self._own[name].shape[0]
        within = part_of(target, weight.shape).layer is not None
        conv = within and self.config.get("model_type") in _TRANSPOSED_MODELS
        embedding = kind == "lora_embedding_A"
        transposed = conv or embedding
        shape = (self._own[other].shape[0], *self._own[name].shape[1:])
        if len(shape) != 2 or (shape[::-1] if transposed else shape) != weight.shape:
            raise CheckpointError(
                f"{self.folder}: the adapter's '{module}' gives shape {list(shape)}, but the "
                f"base's '{target}' has {list(weight.shape)}. The adapter belongs to another base."
            )
        if weight.dtype not in HELD_AS:
            raise CheckpointError(
                f"{self._base.folder}: tensor '{target}' has the type {weight.dtype}; an adapter "
                "can only be merged into bfloat16, float16 or float32."
            )
        scaling = self._scaling(module, rank)
        self._factors[target] = _Factors(name, other, scaling, transposed, embedding)

    def _target(self, wanted: str, name: str) -> str:
        """Return the base's name of a tensor, with one prefix more or less if need be."""
        known = self._base.tensors
        prefixes = sorted({tensor.split(".", 1)[0] for tensor in known if "." in tensor})
        for candidate in (wanted, wanted.split(".", 1)[-1], *(f"{p}.{wanted}" for p in prefixes)):
            if candidate in known:
                return candidate
        raise CheckpointError(
            f"{self.folder}: the adapter's tensor '{name}' belongs to '{wanted}', which the base "
            f"{self._base.folder} does not have. Give the base on which the adapter was trained."
        )

    def _scaling(self, module: str, rank: int) -> float:
        """Return alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA.

        Source: Hu et al. 2021, section 4.1; Kalajdzievski 2023 for the square root.
        """
        alpha = self._settings.get("lora_alpha", 8)
        for pattern, value in (self._settings.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return float(alpha / (math.sqrt(rank) if self._settings.get("use_rslora") else rank))

    def _merge(self, name: str) -> NDArray[np.uint8]:
        import torch

        dtype = self._base.tensors[name].dtype
        with torch.inference_mode():
            # PEFT stores an embedding that it adapts as well: its own copy is the one it merges.
            own = self._replaced.get(name)
            if own is not None:
                weight = self._tensor(own).to(_torch_type(dtype))
            else:
                weight = _as_torch(self._base.array(name), dtype)
            factors = self._factors.get(name)
            if factors is not None:
                delta = self._tensor(factors.b).float() @ self._tensor(factors.a).float()
                delta = (delta.T if factors.transposed else delta) * factors.scaling
                # Of an embedding, PEFT rounds the step before it adds it.
                weight += delta.to(weight.dtype) if factors.embedding else delta
            return weight.contiguous().view(torch.uint8).reshape(-1).numpy()

    def _tensor(self, name: str) -> torch.Tensor:
        tensor = self._own[name]
        if tensor.dtype not in HELD_AS:
            raise CheckpointError(f"{self.folder}: '{name}' has the type {tensor.dtype}.")
        raw = np.fromfile(
            self.folder / tensor.file, HELD_AS[tensor.dtype], tensor.elements, offset=tensor.begin
        )
        return _as_torch(raw.reshape(tensor.shape), tensor.dtype)


def _torch_type(dtype: str) -> torch.dtype:
    import torch

    return {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]


def _as_torch(values: Array, dtype: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(values.view(f"i{values.itemsize}")).view(_torch_type(dtype))


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_json(folder / ADAPTER_CONFIG)
    kind = settings.get("peft_type")
    odd = [option for option in _UNSUPPORTED if settings.get(option)]
    if settings.get("init_lora_weights") not in _PLAIN_STARTS:
        odd.append(f"init_lora_weights={settings['init_lora_weights']}")
    if kind != "LORA":
        odd.insert(0, f"peft_type={kind}")
    if odd:
        raise ModelError(
            f"The adapter {folder} uses {', '.join(odd)}; only plain LoRA is merged here. Merge it "
            "with PEFT's merge_and_unload, save the model and give its folder."
        )
    return dict(settings)
