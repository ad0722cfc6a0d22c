"""One training from start to end: facts drawn, model trained, a whole folder written.

It may be called many times in one process, and by several processes together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import atomic_folder, installed_versions, write_json
from sftknow_eval.errors import SettingsError, TrainingDiverged
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.record import RECORD_NAME, TrainingRecord, read_record
from sftknow_eval.training.checkpoints import Checkpoints, held
from sftknow_eval.training.draw import All, Ask
from sftknow_eval.training.material import Material, drawn_facts, drawn_rows, full_path
from sftknow_eval.training.processes import Processes
from sftknow_eval.training.settings import TrainSettings
from sftknow_eval.training.sft import Job, Trained, quiet_libraries, require_trl, train
from sftknow_eval.training.strategy import Strategy

if TYPE_CHECKING:
    from sftknow_eval.training.watch import OnStep

logger = logging.getLogger(__name__)

_PACKAGES = ("sftknow-eval", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What to train, on what and where to.

    Attributes:
        base: local folder or hub id of the base model, with its `revision`.
        out: the folder to be made.
        stratum: the one stratum trained on, or `all`; None for the strategy's own.
        n: number of facts, or `all` of the stratum; None for the strategy's own.
        seed: draws the facts and orders the batches.
        training: settings of the optimisation that go before the strategy's.
        prompts: file of rows to train on instead of facts.
        checkpoint_steps: steps between checkpoints, for a training that takes more.
    """

    base: str
    out: Path
    revision: str | None = None
    stratum: int | All | None = None
    n: int | All | None = None
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    prompts: Path | None = None
    checkpoint_steps: int = 100

    def __post_init__(self) -> None:
        """Refuse impossible values, all of them at once."""
        faults = []
        if self.stratum not in (None, "all", *range(5)):
            faults.append(f"stratum is {self.stratum}, but has to be 0 to 4 or 'all'")
        if self.n is not None and self.n != "all" and self.n < 1:
            faults.append(f"n is {self.n}, but has to be at least 1, or 'all'")
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed is {self.seed}, but has to be from 0 to 2**32 - 1")
        if self.checkpoint_steps < 1:
            faults.append(f"checkpoint_steps is {self.checkpoint_steps}, but has to be at least 1")
        if self.prompts is not None and self.stratum is not None:
            faults.append("stratum is given, but rows of another task have none")
        if faults:
            raise SettingsError("Fine-tune: " + "; ".join(faults) + ".")


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A finished fine-tune, and whether it was there already."""

    folder: Path
    record: TrainingRecord
    reused: bool


def train_strategy(
    strategy: Strategy,
    request: TrainRequest,
    dataset: Dataset | None = None,
    table: MasteryTable | None = None,
    *,
    on_step: OnStep | None = None,
) -> Finetuned:
    """Train the base as the strategy says, and write the model or adapter with its record.

    A training that was stopped goes on from its last checkpoint.

    Args:
        strategy: of the kind `training`.
        request: on what, and where to.
        dataset: the facts; not needed for rows.
        table: mastery table of the base; not needed for rows.
        on_step: called with (steps done, steps in all, loss) as training goes on.

    Raises:
        MissingDependency: TRL (or PEFT, for an adapter) is not installed.
        MasteryError: the table belongs to another base or to other facts.
        TooFewFacts: there are fewer than asked for.
        SettingsError: the strategy does not train, or another run's model is in the folder.
        TrainingDiverged: a loss or weight is no longer a number.
        ModelError: the base is unreadable, or the memory too small.
        OutOfSpace: the disk filled up; no folder is left.
    """
    _check_trains(strategy)
    require_trl(*(("peft",) if strategy.adapter else ()))
    settings = strategy.train_settings(**request.training)
    folder = locate_model(request.base, request.revision)
    fingerprint = weight_fingerprint(folder)
    material = _material(strategy, request, dataset, table, fingerprint)
    planned = _plan(strategy, settings, request, material, fingerprint)
    if finished := _finished(request.out, planned):
        logger.info("%s holds this fine-tune already", request.out)
        # Left where a run was killed after its model was there.
        Checkpoints.beside(request.out, request.checkpoint_steps).remove()
        return Finetuned(request.out, finished, reused=True)
    _check_writable(request.out)
    with _kept(request, planned, settings.steps(len(material.items))) as checkpoints:
        record = _trained(strategy, settings, request, material, planned, checkpoints, on_step)
    return Finetuned(request.out, record, reused=False)


def _check_trains(strategy: Strategy) -> None:
    if strategy.is_trained:
        return
    verbs = {
        "restoration": "'sftknow sweep' and 'sftknow restore', on a fine-tune",
        "interpolation": "'sftknow interpolate', on a fine-tune",
        "published": "'sftknow eval', on the published checkpoint",
        "base": "'sftknow eval', which asks the base beside a fine-tune",
        "base_again": "the statistics, from the base's own samples",
    }
    raise SettingsError(
        f"The strategy '{strategy.name}' trains nothing. It is made by {verbs[strategy.kind]}."
    )


def _material(
    strategy: Strategy,
    request: TrainRequest,
    dataset: Dataset | None,
    table: MasteryTable | None,
    fingerprint: str,
) -> Material:
    if request.prompts is not None:
        if strategy.facts.draw != "stratum":
            raise SettingsError(
                f"The strategy '{strategy.name}' chooses facts by their mastery "
                f"({strategy.facts.draw}), which rows of another task do not have."
            )
        return drawn_rows(request.prompts, request.n or "all", request.seed)
    if dataset is None or table is None:
        raise SettingsError("Facts and the base's mastery table are needed, or a file of rows.")
    table.check_base(fingerprint)
    own = strategy.facts
    stratum = own.stratum if request.stratum is None else request.stratum
    n = own.n if request.n is None else request.n
    return drawn_facts(strategy, dataset, table, Ask(stratum, n, request.seed))


def _plan(
    strategy: Strategy,
    settings: TrainSettings,
    request: TrainRequest,
    material: Material,
    fingerprint: str,
) -> TrainingRecord:
    adapter = strategy.adapter
    return TrainingRecord(
        strategy=strategy.name,
        strategy_digest=strategy.digest,
        base=full_path(request.base),
        revision=request.revision,
        base_fingerprint=fingerprint,
        n=len(material.items),
        seed=request.seed,
        hyperparameters=dataclasses.asdict(settings),
        trainer=strategy.trainer,
        adapter=adapter.model_dump(mode="json") if adapter else None,
        saved_dtype=settings.saved_dtype,
        versions=installed_versions(*_PACKAGES),
        steps=0,
        processes=Processes.of_environment().count,
        losses=(),
        **material.recorded,
    )


def _finished(out: Path, planned: TrainingRecord) -> TrainingRecord | None:
    """Return the record in `out` if it is the planned run's; None if `out` is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record = read_record(out) if out.is_dir() else None
    if record is None:
        raise SettingsError(
            f"{out} exists and is not a model made by 'sftknow train' (it has no {RECORD_NAME}). "
            "Give another --out, or move it away."
        )
    if different := record.differences(planned.settings()):
        raise SettingsError(
            f"{out} holds another fine-tune; it differs in {'; '.join(different)}. Give another "
            "--out, or remove the folder to train anew."
        )
    return record


def _check_writable(out: Path) -> None:
    # Found out now rather than after the training.
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent):
            pass
    except OSError as error:
        raise SettingsError(
            f"Nothing can be written into the folder {out.parent}: {error.strerror or error}. Give "
            "another --out."
        ) from error


@contextlib.contextmanager
def _kept(request: TrainRequest, plan: TrainingRecord, steps: int) -> Iterator[Checkpoints | None]:
    """Yield where checkpoints are kept; None where the training is over before the first."""
    if steps <= request.checkpoint_steps:
        yield None
        return
    if not Processes.of_environment().is_first:
        yield Checkpoints.beside(request.out, request.checkpoint_steps)
        return
    with held(request.out, plan, request.checkpoint_steps) as checkpoints:
        try:
            yield checkpoints
        except TrainingDiverged:
            # It would diverge again.
            checkpoints.remove()
            raise


def _trained(
    strategy: Strategy,
    settings: TrainSettings,
    request: TrainRequest,
    material: Material,
    planned: TrainingRecord,
    checkpoints: Checkpoints | None,
    on_step: OnStep | None,
) -> TrainingRecord:
    adapter = strategy.adapter
    tokenizer = _tokenizer(request)
    job = Job(
        examples=material.encoded(tokenizer),
        settings=settings,
        seed=request.seed,
        trainer=strategy.trainer,
        adapter=(adapter.type, adapter.settings) if adapter else None,
        merged=adapter is not None and adapter.save == "merged",
        checkpoints=checkpoints,
    )
    done = train(lambda: _model(request, settings), tokenizer, job, on_step)
    record = planned.model_copy(
        update={
            "losses": tuple(done.losses),
            "steps": done.losses[-1][0],
            "trained_parameters": done.trained_parameters,
            "total_parameters": done.total_parameters,
            "resumed_at": done.resumed_at,
        }
    )
    return _save(request, done, job, tokenizer, record)


def _tokenizer(request: TrainRequest) -> Any:
    from sftknow_eval.mastery.hf_model import load_tokenizer

    folder = locate_model(request.base, request.revision)
    with quiet_libraries():
        return load_tokenizer(folder, request.base, trust_remote_code=False)


def _model(request: TrainRequest, settings: TrainSettings) -> Any:
    from sftknow_eval.mastery.hf_model import load_model

    folder = locate_model(request.base, request.revision)
    return load_model(folder, request.base, settings.dtype, trust_remote_code=False)


def _save(
    request: TrainRequest, done: Trained, job: Job, tokenizer: Any, record: TrainingRecord
) -> TrainingRecord:
    from sftknow_eval.training.save import save_adapter, save_model

    # Every process takes part in gathering what is spread over them.
    folders = (
        atomic_folder(request.out)
        if Processes.of_environment().is_first
        else tempfile.TemporaryDirectory(prefix="sftknow-train-")
    )
    with folders as name, quiet_libraries():
        partial = Path(name)
        if job.adapter and not job.merged:
            dtype = save_adapter(done.trainer, partial, record.base, record.revision)
            record = record.model_copy(update={"saved_dtype": dtype})
        else:
            save_model(done.trainer, partial, job.settings.saved_dtype)
        tokenizer.save_pretrained(partial)
        write_json(partial / RECORD_NAME, record.model_dump(mode="json"))
    done.trainer.accelerator.wait_for_everyone()
    return record
