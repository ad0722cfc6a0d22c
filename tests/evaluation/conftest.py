"""A mastery table and a fine-tune of the tiny world, made once for all tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.models import weight_fingerprint

SAMPLES = 4

# Correct samples (of 3 templates x 4) by fact id; facts that are left out are not probed.
Counts = dict[str, int]
MakeTable = Callable[..., Path]


@pytest.fixture(scope="session")
def make_table(tmp_path_factory: pytest.TempPathFactory) -> MakeTable:
    """Write a mastery table of any data with chosen counts, as if a base had been probed."""

    def make(
        data: Path, counts: Counts, *, fingerprint: str = "f" * 64, base: str = "base"
    ) -> Path:
        dataset = open_dataset(data)
        facts = [fact for fact in dataset.probe_facts() if fact.id in counts]
        templates = load_templates(dataset.templates_file, dataset.relations.values())
        verdicts = np.zeros((len(facts), templates.count, SAMPLES), bool)
        for row, fact in zip(verdicts, facts, strict=True):
            row.reshape(-1)[: counts[fact.id]] = True
        meta = TableMeta(
            base=base,
            revision=None,
            fingerprint=fingerprint,
            data=dataset.name,
            facts_digest="",
            templates_digest=templates.digest,
            n_templates=templates.count,
            samples_per_template=SAMPLES,
            temperature=0.7,
            max_tokens=32,
            seed=0,
        )
        path = tmp_path_factory.mktemp("table") / "mastery.parquet"
        MasteryTable.build(facts, pack_verdicts(verdicts), meta).write(path)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_mastery(tiny_world: Path, make_table: MakeTable) -> Path:
    """A table of the tiny world's base: drawn counts, all strata, the base's own fingerprint."""
    facts = open_dataset(tiny_world).probe_facts()
    drawn = np.random.default_rng(0).integers(0, 21 * SAMPLES + 1, len(facts))
    drawn[::4] = 0
    counts = {fact.id: int(count) for fact, count in zip(facts, drawn, strict=True)}
    base = tiny_world / "base"
    return make_table(tiny_world, counts, fingerprint=weight_fingerprint(base), base=str(base))


@pytest.fixture(scope="session")
def tuned(tiny_world: Path, tiny_mastery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real fine-tune of the tiny world's base, with its training record."""
    from sftknow_eval.training.run import TrainRequest, train_strategy
    from sftknow_eval.training.strategy import load_strategy

    request = TrainRequest(
        base=str(tiny_world / "base"),
        out=tmp_path_factory.mktemp("tuned") / "model",
        stratum="all",
        n=64,
        training={"learning_rate": 1e-3, "epochs": 2},
    )
    table = MasteryTable.read(tiny_mastery)
    strategy = load_strategy("sft_divided")
    return train_strategy(strategy, request, open_dataset(tiny_world), table).folder
