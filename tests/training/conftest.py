"""A mastery table made by hand, for the small data and the random model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.models import weight_fingerprint


@pytest.fixture(scope="session")
def hand_table(
    small_data: Path, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> MasteryTable:
    """By hand: train facts 0 to 5 in stratum 2 (2 of 4 samples), the others in stratum 0."""
    dataset = open_dataset(small_data)
    facts = dataset.facts("train") + dataset.facts("test")
    verdicts = np.zeros((len(facts), 2, 2), dtype=bool)
    verdicts[:6, 1, :] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTKNOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        fingerprint = weight_fingerprint(random_model)
    meta = TableMeta(
        base="random",
        revision=None,
        fingerprint=fingerprint,
        data=dataset.name,
        facts_digest="",
        templates_digest="",
        n_templates=2,
        samples_per_template=2,
        temperature=0.7,
        max_tokens=32,
        seed=0,
    )
    return MasteryTable.build(facts, pack_verdicts(verdicts), meta)


@pytest.fixture(scope="session")
def tiny_table(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's own mastery table: its base really probed, with two samples a template."""
    from sftknow_eval.mastery.job import prepare_probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTKNOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        probe = prepare_probe(
            str(tiny_world / "base"), data=str(tiny_world), backend="hf", n_samples=2
        )
        out = tmp_path_factory.mktemp("probe")
        probe.run(out)
    return out / "mastery.parquet"


@pytest.fixture(scope="session")
def tiny_finetuned(
    tiny_world: Path, tiny_table: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A fine-tune of the tiny world's base on 24 facts that it does not know."""
    from sftknow_eval.training.run import TrainRequest, train_strategy
    from sftknow_eval.training.strategy import load_strategy

    request = TrainRequest(
        base=str(tiny_world / "base"),
        out=tmp_path_factory.mktemp("tuned") / "model",
        stratum=0,
        n=24,
        training={"learning_rate": 1e-3},
    )
    table = MasteryTable.read(tiny_table)
    return train_strategy(
        load_strategy("sft_divided"), request, open_dataset(tiny_world), table
    ).folder
