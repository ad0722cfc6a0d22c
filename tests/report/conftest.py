"""A small study of the tiny world, run once: real probe, trainings, sweeps and statistics."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from report_world import CopyOf, Made, World, asked_of, make_card

from sftknow_eval.report.card import CardRequest
from sftknow_eval.study.study import read_plan, run_study

STUDY = """
name: small
title: A small study
bases: [{title: tiny, world: {size: tiny}}]
evaluation: {batch_size: 64}
training: {learning_rate: 1e-3}
statistics: {draws: 200}
report: false
runs:
  - strategy: sft_divided
    strata: [0, 2]
    n: [8, 24]
    draws: 2
    sweep: {ratios: [0, 20, 60], n: [24], own_facts: [0, 20]}
    weights: {}
    layers: {ranges: ["0", "1"], n: [24]}
  - {strategy: lora, strata: [0], n: [24], draws: 1, settings: {learning_rate: 5e-3}}
  - {strategy: restoration, strata: [0], n: [24], draws: 2}
  - {strategy: base}
  - {strategy: base_again}
  - {strategy: format_only, n: [8], draws: 1}
other_tasks:
  - {name: echo, make: echo, n: 64, ratios: [0, 20, 60]}
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The study's folder and the models in it.

    `SFTKNOW_TEST_STUDY` names a ready-made one (`sftknow study` with the text above).
    """
    ready = os.environ.get("SFTKNOW_TEST_STUDY")
    out = Path(ready) if ready else tmp_path_factory.mktemp("study") / "out"
    if not ready:
        config = out.parent / "study.yaml"
        config.write_text(STUDY, encoding="utf-8")
        run_study(read_plan(config), out, workers=1)
    study = json.loads((out / "study.json").read_text())
    models = {run["id"]: out / run["model"] for run in study["runs"] if run["model"]}
    base = study["bases"][0]
    return World(
        study=out,
        data=out / base["data"],
        base=out / base["path"],
        table=out / base["mastery"],
        finetuned=models["sft_divided-s0-n24-d0"],
        smaller=models["sft_divided-s0-n8-d0"],
        adapter=models["lora-s0-n24-d0"],
    )


@pytest.fixture
def chat_model(world: World, tmp_path: Path) -> Path:
    """The fine-tune as a third party's chat model: a chat template, no training record.

    The template writes the prompt that the model was trained on, so that it answers as well.
    """
    folder = tmp_path / "chat"
    shutil.copytree(world.finetuned, folder, ignore=shutil.ignore_patterns("sftknow.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|question|> "
        "{{ m.content }} <|answer|>{% endif %}{% endfor %}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(f"---\nbase_model: {world.base}\n---\n# A chat model\n")
    return folder


@pytest.fixture(scope="session")
def other_base(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the base's architecture with weights of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("other") / "base"
    shutil.copytree(world.base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(world.base)).save_pretrained(folder)
    return folder


@pytest.fixture
def without_record(tmp_path: Path) -> CopyOf:
    """Copy a model folder without its training record."""

    def copy(folder: Path, card: str | None = None) -> Path:
        target = tmp_path / f"copy-{folder.name}"
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("sftknow.json", "README.md"))
        if card is not None:
            (target / "README.md").write_text(card)
        return target

    return copy


@pytest.fixture(scope="session")
def request_of_all(world: World) -> CardRequest:
    """A full fine-tune, a smaller one and an adapter, side by side."""
    models = (str(world.finetuned), str(world.smaller), str(world.adapter))
    return CardRequest(asked=asked_of(world), finetuned=models, ratios=(0.0, 20.0, 60.0))


@pytest.fixture(scope="session")
def made(
    world: World, request_of_all: CardRequest, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """The report of all three."""
    return make_card(request_of_all, tmp_path_factory.mktemp("card") / "report")
