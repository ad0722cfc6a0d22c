"""A pair of small models, a mastery table of their facts, and a sweep over them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.sweep.request import SweepRequest


@pytest.fixture(scope="module")
def tuned(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune in which a third of the weights moved, some of them far."""
    folder = tmp_path_factory.mktemp("sweep") / "tuned"
    shutil.copytree(random_model, folder)
    tensors = load_file(random_model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in sorted(tensors.items()):
        step = torch.randn(tensor.shape, generator=generator) * tensor.abs() * 3
        step[torch.rand(tensor.shape, generator=generator) < 2 / 3] = 0
        tensors[name] = tensor + step
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def mastery(small_data: Path, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the small data in which every fact has a few correct samples."""
    dataset = open_dataset(small_data)
    facts = dataset.probe_facts()
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    verdicts = np.zeros((len(facts), templates.count, 4), bool)
    for number, row in enumerate(verdicts):
        row.reshape(-1)[: number % 13] = True
    meta = TableMeta(
        base=str(random_model),
        revision=None,
        fingerprint=weight_fingerprint(random_model),
        data=dataset.name,
        facts_digest="",
        templates_digest=templates.digest,
        n_templates=templates.count,
        samples_per_template=4,
        temperature=0.7,
        max_tokens=32,
        seed=0,
    )
    path = tmp_path_factory.mktemp("table") / "mastery.parquet"
    MasteryTable.build(facts, pack_verdicts(verdicts), meta).write(path)
    return path


@pytest.fixture
def request_of(random_model: Path, tuned: Path, small_data: Path, mastery: Path) -> Any:
    def make(**changes: Any) -> SweepRequest:
        settings: dict[str, Any] = {
            "base": str(random_model),
            "finetuned": str(tuned),
            "ratios": (0, 10, 100),
            "tasks": ("sftknow_cbqa",),
            "metadata": {"mastery": str(mastery), "data": str(small_data), "style": "plain"},
            "engine_args": {"device": "cpu"},
        }
        return SweepRequest(**{**settings, **changes})

    return make
