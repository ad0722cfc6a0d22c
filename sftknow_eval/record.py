"""The training record: what a fine-tuned model folder says about how it was made.

`sftknow train` writes it as `sftknow.json` beside the weights. Training writes it; the tasks
read it to find the base, its mastery table and the prompt that the model was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import DataError

RECORD_NAME = "sftknow.json"

# Where a run found things, what came out of it, and what other fields say already.
_NOT_SETTINGS = {
    *("base", "data_source", "fact_ids", "drawn", "versions", "steps", "losses"),
    *("strategy_digest", "trained_parameters", "total_parameters", "resumed_at", "processes"),
}


class TrainingRecord(BaseModel):
    """How a fine-tuned model was made: enough to make it again, and to find its base.

    Attributes:
        strategy: name of the strategy; `strategy_digest` is that of its settings.
        prompt: the prompt style of training, to be used in the test too; `own` for prompts that
            came from a file of rows.
        base: the base model as it was named, with the `revision` asked for.
        base_fingerprint: of the base's weights (`models.weight_fingerprint`).
        mastery_digest: of the counts in the mastery table that gave the strata; None for rows.
        data: name of the data set or file of rows; `data_source` is where it was read.
        facts_digest: of the drawn facts (ids, questions and accepted answers), or of the rows.
        stratum: the one stratum trained on, or `all`; None for rows.
        n: number of facts or rows trained on; `seed` drew them and ordered the batches.
        fact_ids: the facts, in the order in which they were drawn; for rows, their numbers.
        drawn: how many facts play which part, such as `stratum` and `replayed`.
        hyperparameters: of the optimisation, by the names of `TrainSettings`.
        trainer: further settings of TRL's `SFTConfig`; `adapter` are PEFT's, None for none.
        saved_dtype: of the weights as saved.
        trained_parameters: weights that were trained, of `total_parameters`.
        steps: optimisation steps; `resumed_at` are those after which a stopped run went on.
        processes: how many trained together.
        losses: pairs of (step, mean loss of a target token since the pair before).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["sftknow-training/1"] = "sftknow-training/1"
    strategy: str = "sft"
    strategy_digest: str | None = None
    prompt: Literal["paper", "own"] = "paper"
    base: str
    revision: str | None
    base_fingerprint: str
    mastery_digest: str | None
    data: str
    data_source: str
    facts_digest: str
    stratum: int | Literal["all"] | None
    n: int
    seed: int
    fact_ids: tuple[str, ...]
    drawn: dict[str, int] = {}
    hyperparameters: dict[str, Any]
    trainer: dict[str, Any] = {}
    adapter: dict[str, Any] | None = None
    saved_dtype: str
    trained_parameters: int | None = None
    total_parameters: int | None = None
    versions: dict[str, str]
    steps: int
    resumed_at: tuple[int, ...] = ()
    processes: int = 1
    losses: tuple[tuple[int, float], ...]

    @property
    def style(self) -> str | None:
        """Return the prompt style to ask facts in; None where training used other prompts."""
        return None if self.prompt == "own" else self.prompt

    def settings(self) -> dict[str, Any]:
        """Return all that decides the weights, flat: the base, the facts, the optimisation."""
        values = self.model_dump(mode="json", exclude=_NOT_SETTINGS)
        return {**values.pop("hyperparameters"), **values}

    def differences(self, settings: dict[str, Any]) -> list[str]:
        """Return one line for each setting that differs from those of another run."""
        mine = self.settings()
        return [
            f"{name}: {_brief(mine.get(name))} there, {_brief(settings.get(name))} now"
            for name in sorted(mine.keys() | settings.keys())
            if mine.get(name) != settings.get(name)
        ]


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} items"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:16]}..."


def read_record(folder: str | Path) -> TrainingRecord | None:
    """Return the training record of a model folder; None where it holds none.

    Raises:
        DataError: the record is not readable, or not of this format.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        return TrainingRecord.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise DataError(
            f"{path} is not a training record of this version of sftknow: {faults}. Train the "
            "model again with 'sftknow train', or take the file out to treat the folder as any "
            "other model."
        ) from error
