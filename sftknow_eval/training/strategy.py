"""A strategy: one YAML file that says how a fine-tune is made, or made from another one.

The files lie in `configs/strategies/`; a path names one of a user's own. A strategy that needs
code brings one small file in `draws/`, which chooses the facts; all else is settings, passed on
to TRL (`trainer`) and PEFT (`adapter`).

Source: section 3.3 and Table 7 (SFT on one stratum and on all, LoRA, restoration, a published
    checkpoint); the others are ours to compare with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sftknow_eval.artifacts import digest
from sftknow_eval.config_faults import nearest, read_config
from sftknow_eval.errors import SettingsError
from sftknow_eval.training.settings import DTYPES, SCHEDULERS, TrainSettings

Kind = Literal["training", "restoration", "interpolation", "published", "base", "base_again"]
Percent = Annotated[float, Field(ge=0, le=100)]

# What nothing of a model depends on.
_WORDS = {"name", "about", "source"}
_TRAINS = ("facts", "training", "trainer", "adapter")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Facts(_Section):
    """Which facts are trained on, where the command does not say.

    Attributes:
        draw: a file in `draws/`, or `package.module:function` of a user's own.
        stratum: 0 to 4, or `all`.
        n: how many of the stratum, or `all`.
        options: of the draw.
    """

    draw: str = "stratum"
    stratum: Annotated[int, Field(ge=0, le=4)] | Literal["all"] = 2
    n: Annotated[int, Field(ge=1)] | Literal["all"] = 240
    options: dict[str, Any] = {}


class Training(_Section):
    """Settings of the optimisation that differ from the paper's (see `TrainSettings`).

    Attributes:
        learning_rate_scale: the learning rate, wherever it comes from, is multiplied by this.
    """

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    learning_rate_scale: Annotated[float, Field(gt=0)] = 1.0
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    lr_scheduler: str | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    warmup: Annotated[float, Field(ge=0)] | None = None
    max_grad_norm: Annotated[float, Field(ge=0)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    dtype: str | None = None
    autocast: bool | None = None
    save_dtype: str | None = None
    gradient_checkpointing: bool | None = None

    @field_validator("lr_scheduler", "dtype", "save_dtype")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        names = SCHEDULERS if info.field_name == "lr_scheduler" else DTYPES
        if value is not None and value not in names:
            near = nearest(value, names)
            hint = f"; did you mean '{near}'?" if near else ""
            raise ValueError(f"is '{value}'; one of {', '.join(names)} was expected{hint}")
        return value


class Adapter(_Section):
    """An adapter of PEFT, trained in place of the weights.

    Attributes:
        type: PEFT's name of the method, such as LORA, OFT or OSF.
        save: `adapter` writes the adapter alone; `merged` a whole model.
        settings: of PEFT's configuration class for the method.
    """

    type: str
    save: Literal["adapter", "merged"] = "adapter"
    settings: dict[str, Any] = {}


class Restoration(_Section):
    """Weights that go back to the base.

    Attributes:
        order: which of the region's weights go first.
        ratios: percent of them that are tried.
        ratio_from: a strategy whose chosen ratio is used; None to choose one on the dev split.
    """

    order: Literal["top", "bottom", "random"] = "top"
    seed: Annotated[int, Field(ge=0)] = 0
    region: Literal["transformer", "attention", "mlp", "embedding", "all"] = "transformer"
    ratios: Annotated[tuple[Percent, ...], Field(min_length=1)] = (1, 3, 5, 10, 20, 40, 60)
    ratio_from: str | None = None


class Interpolation(_Section):
    """Models on the straight line from the base to a fine-tune.

    Attributes:
        weights: percent of the way that are tried: 0 is the base, 100 the fine-tune.
    """

    weights: Annotated[tuple[Percent, ...], Field(min_length=1)] = (20, 40, 60, 80)


class Strategy(_Section):
    """How a fine-tune is made, or how a model is made from one.

    Attributes:
        name: that of the file.
        about: one sentence for readers of a report.
        source: where the method is described.
        kind: `training`, or how a model is had without one.
        trainer: further settings of TRL's `SFTConfig`, as they are.
        derived_from: the training strategy whose fine-tune is restored or interpolated.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    about: Annotated[str, Field(min_length=1)]
    source: str | None = None
    kind: Kind = "training"
    facts: Facts = Facts()
    training: Training = Training()
    trainer: dict[str, Any] = {}
    adapter: Adapter | None = None
    derived_from: str | None = None
    restoration: Restoration | None = None
    interpolation: Interpolation | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Strategy:
        given = self.model_fields_set
        needed = {self.kind} & {"restoration", "interpolation"}
        faults = [f"kind {self.kind} needs '{name}'" for name in needed if name not in given]
        if needed and not self.derived_from:
            faults.append(f"kind {self.kind} needs 'derived_from', a training strategy")
        allowed = {*needed, "derived_from"} if needed else set()
        allowed |= set(_TRAINS) if self.is_trained else set()
        sections = (*_TRAINS, "derived_from", "restoration", "interpolation")
        faults += [
            f"kind {self.kind} does not go with '{name}'"
            for name in sections
            if name in given and name not in allowed
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def is_trained(self) -> bool:
        """Whether the strategy trains a model."""
        return self.kind == "training"

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all settings, without what is said about them."""
        return digest(self.model_dump(mode="json", exclude=_WORDS))

    def train_settings(self, **overrides: Any) -> TrainSettings:
        """Return the optimisation's settings: the paper's, the strategy's, then `overrides`.

        Raises:
            SettingsError: impossible values.
        """
        values = self.training.model_dump(exclude_none=True)
        scale = values.pop("learning_rate_scale")
        values |= overrides
        rate = values.get("learning_rate", TrainSettings().learning_rate)
        return TrainSettings(**values | {"learning_rate": rate * scale})


def load_strategy(name_or_path: str | Path) -> Strategy:
    """Return a strategy of the project by its name, or one of a user's own by its path.

    Raises:
        SettingsError: there is none; or its file has faults: all are listed, with their lines.
    """
    from sftknow_eval.training.strategy_checks import strategy_faults

    text = str(name_or_path)
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        path = strategies_path() / f"{text}.yaml"
        if not path.is_file():
            near = nearest(text, known_strategies())
            hint = f" Did you mean '{near}'?" if near else ""
            raise SettingsError(
                f"There is no strategy '{text}'.{hint} Known are {', '.join(known_strategies())}; "
                "a strategy of your own is named by the path of its YAML file."
            )
    strategy = read_config(path, Strategy, strategy_faults)
    if strategy.name != path.stem:
        raise SettingsError(
            f"{path}: the strategy calls itself '{strategy.name}', the file '{path.stem}'. "
            "Results are found by name: use one for both."
        )
    return strategy


def known_strategies() -> tuple[str, ...]:
    """Return the names of the project's strategies."""
    return tuple(sorted(path.stem for path in strategies_path().glob("*.yaml")))


def strategies_path() -> Path:
    """Return the folder of the project's strategies: in a wheel in the package, else beside it.

    Raises:
        SettingsError: it is missing.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "strategies").is_dir():
            return folder / "strategies"
    raise SettingsError(
        f"The strategies are missing: neither {package / 'configs'} nor "
        f"{package.parent / 'configs'} holds them. Install sftknow-eval again."
    )
