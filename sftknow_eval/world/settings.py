"""The mini-world's settings: everything that, with the seed, decides what a world holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Size = Literal["tiny", "demo"]


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """What a world is made of.

    Attributes:
        size: the name of this set of settings.
        seed: decides names, facts, exposures, initial weights and the order of the text.
        id_relations: how many of the ten ID relations there are, in the order of their number.
        ood_relations: how many of the fourteen OOD relations.
        id_facts: facts of each ID relation in train, dev and test.
        ood_facts: facts of each OOD relation in train, dev and test.
        unseen: share of the facts that the text never states.
        exposures: fewest and most statements of the other facts; log-uniform between.
        question_share: share of the statements in question-answer form.
        alias_share: share of the objects that have a second name, and
        alias_use: how often a statement uses it.
        vocabulary: tokens of the byte-level BPE.
        hidden, layers, heads, mlp: shape of the Llama.
        init_std: spread of the initial weights.
        batch, learning_rate, beta2, weight_decay, clip, warmup: the pre-training.
        threads: torch's threads in pre-training; part of the settings, as it decides rounding.
    """

    size: Size
    seed: int
    id_relations: int
    ood_relations: int
    id_facts: tuple[int, int, int]
    ood_facts: tuple[int, int, int]
    unseen: float = 0.15
    exposures: tuple[int, int] = (2, 48)
    question_share: float = 0.15
    alias_share: float = 0.1
    alias_use: float = 0.25
    vocabulary: int = 1400
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    mlp: int = 512
    init_std: float = 0.08
    batch: int = 32
    learning_rate: float = 5e-3
    beta2: float = 0.98
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    threads: int = 1

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


def world_settings(size: Size = "demo", seed: int = 0) -> WorldSettings:
    """Return the settings of a size.

    `demo` has all 24 relations and all five strata; `tiny` serves the tests.
    """
    if size == "demo":
        return WorldSettings(
            size=size,
            seed=seed,
            id_relations=10,
            ood_relations=14,
            id_facts=(320, 40, 100),
            ood_facts=(8, 4, 40),
        )
    return WorldSettings(
        size=size,
        seed=seed,
        id_relations=4,
        ood_relations=2,
        id_facts=(50, 10, 20),
        ood_facts=(8, 4, 20),
        exposures=(3, 72),
        vocabulary=800,
        hidden=64,
        heads=2,
        mlp=256,
        learning_rate=7e-3,
    )
