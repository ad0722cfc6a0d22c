"""A random Llama and a fine-tune of it, as whole model folders, for the tests on load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PROMPTS = (
    "Ada Lovelace was born in",
    "Where did Alan Turing die?",
    "The occupation of Grace Hopper is",
    # Longer than a block of vLLM's cache, so that its reuse is exercised.
    "Ada Lovelace and Alan Turing and Grace Hopper and Emmy Noether and Kurt " * 3,
)


def finetuned(base: Path, out: Path, *, seed: int = 1) -> Path:
    """Copy a model, its weights moved by small and by large relative steps."""
    shutil.copytree(base, out)
    tensors = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(tensors.items()):
        step = torch.randn(tensor.shape, generator=generator) * tensor.abs()
        size = torch.rand(tensor.shape, generator=generator) ** 4
        tensors[name] = (tensor.float() + step * size * 2).to(tensor.dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def damaged(model: Path, out: Path, name: str) -> Path:
    """Copy a model with one bit of one tensor turned over."""
    shutil.copytree(model, out)
    tensors = load_file(model / "model.safetensors")
    tensors[name].view(torch.uint8).reshape(-1)[7] ^= 1
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def greedy(model: Any, tokens: list[int], count: int = 12) -> list[int]:
    """Greedy continuation by transformers."""
    found = model.generate(
        torch.tensor([tokens]), max_new_tokens=count, min_new_tokens=count, do_sample=False
    )
    return [int(token) for token in found[0, len(tokens) :]]
