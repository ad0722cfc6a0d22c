"""Small real checkpoints for the tests of restoration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from sftknow_eval.restoration.checkpoint import INDEX

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def llama_shapes(
    layers: int = 2, hidden: int = 16, vocabulary: int = 40
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a tiny Llama."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{at}.self_attn.{name}.weight"] = (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{at}.mlp.{name}.weight"] = (2 * hidden, hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, 2 * hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{name}.weight"] = (hidden,)
    return shapes


def random_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: str = "BF16"
) -> dict[str, torch.Tensor]:
    """Random weights of a base."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) * 0.05).to(TYPES[dtype])
        for name, shape in shapes.items()
    }


def moved(
    tensors: Mapping[str, torch.Tensor], seed: int, *, ties: float = 0.3, dtype: str | None = None
) -> dict[str, torch.Tensor]:
    """A fine-tune: small random steps, many of them none, so that r = 0 repeats."""
    generator = torch.Generator().manual_seed(seed + 1000)
    result = {}
    for name, tensor in tensors.items():
        step = torch.randn(tensor.shape, generator=generator) * 1e-3
        step[torch.rand(tensor.shape, generator=generator) < ties] = 0
        result[name] = (tensor.float() + step).to(TYPES[dtype] if dtype else tensor.dtype)
    return result


def save(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    shards: int = 1,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder, dealing the tensors out to shards."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"model_type": "llama", "tie_word_embeddings": False} | dict(config or {})
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "generation_config.json").write_text("{}")
    names = sorted(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder, read by the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def in_region(name: str) -> bool:
    """The paper's region, written independently: in a layer and not a norm."""
    return ".layers." in name and "norm" not in name


def reference(
    base: Mapping[str, torch.Tensor],
    finetuned: Mapping[str, torch.Tensor],
    names: list[str],
    count: int,
    *,
    bottom: bool = False,
) -> dict[str, torch.Tensor]:
    """The restored model by a full stable sort of all elements, in PyTorch and NumPy."""
    names = sorted(names)
    scores = np.concatenate([relative_change(base[n], finetuned[n]) for n in names])
    order = np.argsort(scores if bottom else -scores, kind="stable")[:count]
    chosen = np.zeros(scores.size, bool)
    chosen[order] = True
    result = dict(finetuned)
    place = 0
    for name in names:
        shape = finetuned[name].shape
        mask = torch.from_numpy(chosen[place : place + base[name].numel()].copy())
        place += base[name].numel()
        rows = base[name].shape[0]
        restored = finetuned[name].clone()
        flat = restored[:rows].reshape(-1)
        flat[mask] = base[name].reshape(-1)[mask].to(flat.dtype)
        restored[:rows] = flat.reshape(rows, *shape[1:])
        result[name] = restored
    return result


def relative_change(p: torch.Tensor, s: torch.Tensor) -> NDArray[np.float32]:
    """The protocol's arithmetic in float32."""
    x = p.float().numpy().reshape(-1)
    y = s[: p.shape[0]].float().numpy().reshape(-1)
    return np.abs(y - x) / (np.abs(x) + np.float32(1e-8))


def same_bytes(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two models hold the same bits."""
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype
        and one[n].shape == other[n].shape
        and one[n].contiguous().view(torch.uint8).equal(other[n].contiguous().view(torch.uint8))
        for n in one
    )
