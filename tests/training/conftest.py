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
