"""Run a row of the strategy track again and record what came out.

The config comes from a stranger: it names settings, never code (verification refuses that), and
the maintainer sees it before anything is trained.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import installed_versions, write_json
from sftknow_eval.errors import SettingsError, SubmissionError
from sftknow_eval.leaderboard.base_store import BaseStore, documents_digest
from sftknow_eval.leaderboard.base_writer import asked_facts
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.manifest import MANIFEST_NAME, Manifest, SeedRun
from sftknow_eval.leaderboard.material import eval_seed
from sftknow_eval.leaderboard.places import SUBMISSIONS
from sftknow_eval.leaderboard.reproductions import (
    ReproducedSeed,
    Reproduction,
    disagreements,
    record_path,
)
from sftknow_eval.leaderboard.submit import seed_evidence
from sftknow_eval.leaderboard.verify import Verifier
from sftknow_eval.mastery.dataset import Dataset, open_dataset
from sftknow_eval.training.strategy import Strategy

_PACKAGES = ("sftknow-eval", "torch", "transformers", "trl", "peft", "lm_eval", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Where a row is run again.

    Attributes:
        root: the leaderboard's folder.
        row: `version/base/strategy/run`.
        base: local folder or hub id of the base.
        data: the facts; None for the default.
        out: folder for models and evaluations; what is finished there is kept.
        by: the maintainer.
    """

    root: Path
    row: str
    base: str
    data: Path | None
    out: Path
    by: str


def row_to_run(root: Path, row: str) -> tuple[Manifest, BaseStore]:
    """Return a verified row of the strategy track, and its base.

    Raises:
        SubmissionError: there is no such row, it is refused, or it cannot be run again.
    """
    verifier = Verifier(root)
    folder = root / SUBMISSIONS / row
    if not folder.is_dir():
        raise SubmissionError(f"There is no row '{row}' below {root / SUBMISSIONS}.")
    verdict = verifier.verdict(folder)
    manifest = verdict.contents().manifest
    if verdict.reasons or manifest is None:
        raise SubmissionError(f"'{row}' is refused: {'; '.join(verdict.reasons)}")
    if manifest.config is None:
        raise SubmissionError(
            f"'{row}' is in the checkpoint track: it has no config to be run again."
        )
    return manifest, verifier.reference(manifest.base.id).store


def reproduce(
    rerun: Rerun, progress: Callable[[str], None] = lambda line: None
) -> tuple[Reproduction, list[str]]:
    """Train and evaluate every seed of a row again; write the record and return it.

    The record is written whether it agrees or not; a row has the status `reproduced` only while
    its record agrees.

    Returns:
        The record, and in what it disagrees with the row.

    Raises:
        SubmissionError: the row is refused, or is not of the strategy track.
        SettingsError, MasteryError: the base or the data are not the row's.
    """
    manifest, store = row_to_run(rerun.root, rerun.row)
    dataset = open_dataset(rerun.data)
    facts = asked_facts(dataset, store.table)
    if documents_digest(facts) != store.documents:
        raise SettingsError(
            f"The facts of '{dataset.name}' are not those of the base '{store.info.id}'. Name the "
            "row's data with --data."
        )
    seeds = []
    for run in manifest.seeds:
        progress(f"seed {run.seed}: training and evaluating")
        seeds.append(_seed_again(rerun, manifest, run, store, dataset))
    claimed = {run.seed: run.outputs for run in manifest.seeds}
    content = (rerun.root / SUBMISSIONS / rerun.row / MANIFEST_NAME).read_bytes()
    record = Reproduction(
        row=manifest.row,
        manifest=sha256(content),
        by=rerun.by,
        date=datetime.date.today(),
        seeds=tuple(seeds),
        same_outputs=sum(seed.outputs == claimed[seed.seed] for seed in seeds),
        versions=installed_versions(*_PACKAGES),
    )
    write_json(record_path(rerun.root, rerun.row), record.model_dump(mode="json"))
    return record, disagreements(manifest, record)


def _seed_again(
    rerun: Rerun, manifest: Manifest, run: SeedRun, store: BaseStore, dataset: Dataset
) -> ReproducedSeed:
    from sftknow_eval.evaluation.evaluate import EvaluationRequest, evaluate
    from sftknow_eval.evaluation.prompts import check_style
    from sftknow_eval.mastery.backends import check_backend

    folder = rerun.out / f"seed-{run.seed}"
    model, arguments = _model_again(rerun, manifest, run, store, dataset, folder)
    metadata = {"mastery": str(store.folder / "mastery.parquet")}
    if rerun.data is not None:
        metadata["data"] = str(rerun.data)
    dtype = manifest.asking.dtype
    request = EvaluationRequest(
        finetuned=str(model),
        base=rerun.base,
        metadata=metadata,
        style=check_style(manifest.asking.style),
        backend=check_backend(manifest.asking.backend),
        engine_args=arguments | ({} if dtype == "auto" else {"dtype": dtype}),
        num_fewshot=manifest.asking.num_fewshot,
    )
    evaluate(request, folder / "evaluation")
    found = eval_seed(folder / "evaluation", run.seed)
    evidence, counts = seed_evidence(found, store)
    return ReproducedSeed(
        seed=run.seed,
        weights=found.results["finetuned"]["fingerprint"],
        outputs=evidence.outputs_digest(),
        counts=counts,
    )


def _model_again(
    rerun: Rerun,
    manifest: Manifest,
    run: SeedRun,
    store: BaseStore,
    dataset: Dataset,
    folder: Path,
) -> tuple[Path, dict[str, Any]]:
    """Return the model's folder, and the arguments that restore it as it is loaded."""
    from sftknow_eval.training.run import TrainRequest, train_strategy

    config = manifest.config
    assert config is not None
    strategy = Strategy.model_validate(config.strategy)
    trained = Strategy.model_validate(config.source) if config.source else strategy
    regime = manifest.regime
    request = TrainRequest(
        base=rerun.base,
        out=folder / "model",
        stratum="all" if regime.stratum is None else regime.stratum,
        n="all" if regime.n is None else regime.n,
        seed=run.seed,
        training=config.training,
    )
    model = train_strategy(trained, request, dataset, store.table).folder
    if strategy.restoration is not None:
        how = strategy.restoration
        return model, {
            "base": rerun.base,
            "ratio": run.chosen or 0.0,
            "region": how.region,
            "order": how.order,
            "order_seed": how.seed,
        }
    if strategy.interpolation is not None:
        from sftknow_eval.training.interpolate import interpolate

        weights = (100.0 if run.chosen is None else run.chosen,)
        return interpolate(rerun.base, str(model), weights, folder / "interpolated")[0].folder, {}
    return model, {}
