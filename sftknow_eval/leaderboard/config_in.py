"""The config of a row of the strategy track, from the training records of its seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sftknow_eval.artifacts import digest
from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.manifest_parts import StrategyConfig
from sftknow_eval.leaderboard.material import RowMaterial
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.strategy import Strategy, load_strategy


def strategy_config(material: RowMaterial) -> StrategyConfig | None:
    """Return the config that a maintainer can run again; None for the checkpoint track.

    Raises:
        SettingsError: the seeds were not trained by this strategy, or not all by the same settings.
    """
    records = [seed.record for seed in material.seeds if seed.record is not None]
    if material.strategy_file is None or len(records) < len(material.seeds):
        return None
    strategy = load_strategy(material.strategy_file)
    if strategy.kind == "published":
        return None
    source = load_strategy(strategy.derived_from) if strategy.derived_from else None
    trained = source or strategy
    settings = {digest(record.hyperparameters): record.hyperparameters for record in records}
    if {record.strategy_digest for record in records} != {trained.digest} or len(settings) > 1:
        raise SettingsError(
            f"The records of the seeds are not those of one training by '{trained.name}' as it is "
            "in this version. Train again, or submit the model to the checkpoint track with "
            "--track checkpoint."
        )
    return StrategyConfig(
        strategy=strategy.model_dump(mode="json", exclude_unset=True),
        source=source.model_dump(mode="json", exclude_unset=True) if source else None,
        training=_overrides(trained, next(iter(settings.values()))),
    )


def _overrides(strategy: Strategy, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that went before the strategy's own to give these hyperparameters."""
    own = dataclasses.asdict(strategy.train_settings())
    given = {
        name: value for name, value in hyperparameters.items() if name in own and own[name] != value
    }
    if "learning_rate" in given:
        given["learning_rate"] /= strategy.training.learning_rate_scale
    fields = {field.name for field in dataclasses.fields(TrainSettings)}
    return {name: value for name, value in given.items() if name in fields}
