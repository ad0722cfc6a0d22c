"""The strategy track's config: complete, the project's own kind, and fit to be run again.

A strategy may name code of a user's own (`facts.draw: package.module:function`); one that does
cannot be on the board, as running it again would run a stranger's code.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.manifest import Manifest
from sftknow_eval.leaderboard.texts import text_fault
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.strategy import Strategy

_NOT_SUBMITTED = ("base", "base_again", "published")


def config_faults(manifest: Manifest) -> list[str]:
    """Return what keeps a row's config from being run again by a maintainer."""
    return list(_faults(manifest))


def _faults(manifest: Manifest) -> Iterator[str]:
    config = manifest.config
    if config is None:
        return
    strategy = source = None
    try:
        strategy = Strategy.model_validate(config.strategy)
        source = Strategy.model_validate(config.source) if config.source is not None else None
    except ValidationError as error:
        yield faults_of(error, "config")
        return
    if fault := next(_text_faults(config.model_dump()), None):
        yield f"config: a text in it {fault}"
    if strategy.kind in _NOT_SUBMITTED:
        yield f"config: a strategy of the kind '{strategy.kind}' is no row of the strategy track"
    if strategy.derived_from != (source.name if source else None):
        yield (
            f"config: '{strategy.name}' is derived from {strategy.derived_from!r:.60}; the source "
            f"given is {source.name if source else None!r:.60}"
        )
    if strategy.name.lower() != manifest.strategy:
        yield f"config: the strategy is '{strategy.name}', the row's is '{manifest.strategy}'"
    trained = source or strategy
    if not trained.is_trained:
        yield f"config: '{trained.name}' trains nothing"
    if not trained.facts.draw.isidentifier():
        yield f"config: the draw {trained.facts.draw!r:.60} is code of its own, not the project's"
    yield from _training_faults(trained, config.training)
    yield from _order_faults(manifest, strategy)


def _text_faults(value: Any) -> Iterator[str]:
    """Yield what keeps texts from being shown, of names and values at any depth."""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, str):
        if fault := text_fault(value):
            yield fault
    elif isinstance(value, list):
        for part in value:
            yield from _text_faults(part)


def _training_faults(trained: Strategy, training: Mapping[str, Any]) -> Iterator[str]:
    """Yield what keeps settings of the optimisation from being used."""
    known = {field.name for field in dataclasses.fields(TrainSettings)}
    if unknown := sorted(training.keys() - known):
        yield f"config: there are no settings {', '.join(map(repr, unknown))[:120]} of a training"
        return
    try:
        _settings().validate_json(json.dumps(training), strict=True)
        trained.train_settings(**training)
    except ValidationError as error:
        yield faults_of(error, "config: training")
    except SettingsError as error:
        yield f"config: {error}"


@functools.cache
def _settings() -> TypeAdapter[TrainSettings]:
    return TypeAdapter(TrainSettings)


def _order_faults(manifest: Manifest, strategy: Strategy) -> Iterator[str]:
    restores = strategy.kind == "restoration"
    changed = [run for run in manifest.seeds if run.recipe is not None]
    if changed and not restores:
        yield f"config: '{strategy.name}' restores nothing, and there are recipes"
    order = strategy.restoration.order if strategy.restoration else None
    if (manifest.control == "random_restoration") != (order == "random"):
        yield "a row of random restoration is a control, and no other row is"


def trained_config(config: Mapping[str, Any]) -> Strategy:
    """Return the strategy that trains: a config's own, or that which it is derived from."""
    return Strategy.model_validate(config["source"] or config["strategy"])
