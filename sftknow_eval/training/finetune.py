"""One fine-tune from start to end: facts drawn, model trained, a whole folder written."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import atomic_folder, digest, installed_versions, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.record import RECORD_NAME, TrainingRecord, read_record
from sftknow_eval.training.draw import All, draw_facts
from sftknow_eval.training.encode import encode_fact
from sftknow_eval.training.sft import OnStep, TrainSettings, quiet_libraries, require_trl, train

logger = logging.getLogger(__name__)

_PACKAGES = ("sftknow-eval", "torch", "transformers", "trl", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRequest:
    """What to train on what.

    Attributes:
        base: local folder or hub id of the base model, with its `revision`.
        out: the folder to be made.
        stratum: the one stratum trained on, or `all`.
        n: number of facts, or `all` of the stratum.
        seed: draws the facts and orders the batches.
    """

    base: str
    out: Path
    revision: str | None = None
    stratum: int | All = 2
    n: int | All = 240
    seed: int = 0
    settings: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Refuse impossible values, all of them at once."""
        faults = []
        if self.stratum != "all" and self.stratum not in range(5):
            faults.append(f"stratum is {self.stratum}, but has to be 0 to 4 or 'all'")
        if self.n != "all" and self.n < 1:
            faults.append(f"n is {self.n}, but has to be at least 1, or 'all'")
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed is {self.seed}, but has to be from 0 to 2**32 - 1")
        if faults:
            raise SettingsError("Fine-tune: " + "; ".join(faults) + ".")


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A finished fine-tune, and whether it was there already."""

    folder: Path
    record: TrainingRecord
    reused: bool


def finetune(
    request: FinetuneRequest,
    dataset: Dataset,
    table: MasteryTable,
    *,
    on_step: OnStep | None = None,
) -> Finetuned:
    """Train the base on facts of one stratum and write the model with its record.

    Raises:
        MissingDependency: TRL is not installed.
        MasteryError: the table belongs to another base or to other facts.
        SettingsError: too few facts, or another run's model in the folder.
        ModelError: the base is unreadable, or the training diverged.
        OutOfSpace: the disk filled up; no folder is left.
    """
    require_trl()
    folder = locate_model(request.base, request.revision)
    fingerprint = weight_fingerprint(folder)
    table.check_base(fingerprint)
    candidates = dataset.facts("train", domain="id")
    facts = draw_facts(
        candidates,
        table.strata_of(candidates),
        stratum=request.stratum,
        n=request.n,
        seed=request.seed,
    )
    planned = _plan(request, dataset, table, facts, fingerprint)
    if finished := _finished(request.out, planned):
        logger.info("%s holds this fine-tune already", request.out)
        return Finetuned(request.out, finished, reused=True)
    _check_writable(request.out)
    model, tokenizer = _load(folder, request)
    examples = [encode_fact(tokenizer, fact) for fact in facts]
    losses = train(model, tokenizer, examples, request.settings, seed=request.seed, on_step=on_step)
    record = planned.model_copy(update={"losses": tuple(losses), "steps": losses[-1][0]})
    _save(request, model, tokenizer, record)
    return Finetuned(request.out, record, reused=False)


def _plan(
    request: FinetuneRequest,
    dataset: Dataset,
    table: MasteryTable,
    facts: list[Fact],
    fingerprint: str,
) -> TrainingRecord:
    return TrainingRecord(
        base=_named(request.base),
        revision=request.revision,
        base_fingerprint=fingerprint,
        mastery_digest=_mastery_digest(table),
        data=dataset.name,
        data_source=_named(dataset.source),
        facts_digest=hashlib.sha256(b"".join(fact.digest() for fact in facts)).hexdigest(),
        stratum=request.stratum,
        n=len(facts),
        seed=request.seed,
        fact_ids=tuple(fact.id for fact in facts),
        hyperparameters=dataclasses.asdict(request.settings),
        saved_dtype=request.settings.saved_dtype,
        versions=installed_versions(*_PACKAGES),
        steps=0,
        losses=(),
    )


def _named(source: str) -> str:
    # A folder is recorded by its full path, as the tasks may be run from anywhere.
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _mastery_digest(table: MasteryTable) -> str:
    columns = (table.rows[name].to_pylist() for name in ("fact_id", "n_correct", "n_samples"))
    return digest([table.meta.fingerprint, sorted(zip(*columns, strict=True))])


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


def _load(folder: Path, request: FinetuneRequest) -> tuple[Any, Any]:
    from sftknow_eval.mastery.hf_model import load_model, load_tokenizer

    with quiet_libraries():
        tokenizer = load_tokenizer(folder, request.base, trust_remote_code=False)
        dtype = request.settings.dtype
        model = load_model(folder, request.base, dtype, trust_remote_code=False)
    return model, tokenizer


def _save(request: FinetuneRequest, model: Any, tokenizer: Any, record: TrainingRecord) -> None:
    import torch

    with atomic_folder(request.out) as partial, quiet_libraries():
        model.to(device="cpu", dtype=getattr(torch, record.saved_dtype))
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_json(partial / RECORD_NAME, record.model_dump(mode="json"))
