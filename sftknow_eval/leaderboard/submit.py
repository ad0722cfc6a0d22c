"""Make submissions from results: manifest, evidence, recipes, lists of training facts."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from sftknow_eval import __version__
from sftknow_eval.artifacts import atomic_folder, write_json
from sftknow_eval.errors import SettingsError, SubmissionError
from sftknow_eval.leaderboard.asking import asking_of, judged
from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.config_in import strategy_config
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.contamination import training_lines
from sftknow_eval.leaderboard.crosscheck import cross_faults
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.evidence import (
    Evidence,
    evidence_path,
    identity,
    prompt_digests,
    write_evidence,
)
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.manifest import (
    BENCHMARK,
    FORMAT,
    MANIFEST_NAME,
    Manifest,
    SeedRun,
    TrainingData,
    read_manifest,
)
from sftknow_eval.leaderboard.manifest_parts import (
    Asking,
    Counts,
    Origin,
    Recipe,
    Training,
    WeightFile,
    Weights,
)
from sftknow_eval.leaderboard.material import RowMaterial, SeedMaterial
from sftknow_eval.leaderboard.places import SUBMISSIONS, submission_folders
from sftknow_eval.leaderboard.recount import seed_counts
from sftknow_eval.leaderboard.verify import Verifier
from sftknow_eval.mastery.facts import Domain, Fact
from sftknow_eval.models import ADAPTER_CONFIG

_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", ADAPTER_CONFIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What only the submitter can say.

    Attributes:
        contact: mail address, https:// address or @handle.
        licence: of the submitted files, an SPDX name such as CC-BY-4.0.
        training_data: what the model was trained on, in words.
        test_facts: whether test facts were in it.
        title, summary: to show; the title is made where it is None.
        training_file: JSON lines with the training data, where it is not the base's train facts.
        gpu_hours: of each seed's training.
        evidence: False for a row that is only reported (and never ranked).
    """

    contact: str
    licence: str
    training_data: str
    test_facts: str = "no"
    title: str | None = None
    summary: str = ""
    training_file: Path | None = None
    gpu_hours: float | None = None
    evidence: bool = True


def submit_row(
    verifier: Verifier, material: RowMaterial, store: BaseStore, declaration: Declaration
) -> Path:
    """Write the submission of one row, if it would not be refused; return its folder.

    Raises:
        SubmissionError: it would be refused, for the reasons given; nothing is left.
        SettingsError: a row of this name is there already.
    """
    root = verifier.root
    row = f"{BENCHMARK}/{store.info.id}/{material.strategy}/{material.run}"
    folder = root / SUBMISSIONS / row
    if folder.exists():
        raise SettingsError(
            f"There is a row '{row}' already, and rows are not changed. Name this one with --run."
        )
    others = _other_manifests(root)
    elsewhere = _known_outputs(others)
    with atomic_folder(folder) as partial:
        runs = [_seed_run(partial, seed, store, declaration, elsewhere) for seed in material.seeds]
        manifest = _manifest(material, store, declaration, runs)
        write_json(partial / MANIFEST_NAME, manifest.model_dump(mode="json"))
        reasons = verifier.verdict(partial, at=row).reasons
        entries = map(Entry.of, (*others, manifest))
        reasons = reasons or tuple(cross_faults(list(entries)).get(row, ()))
        if reasons:
            raise SubmissionError(f"{row} would be refused: {'; '.join(reasons)}.")
    return folder


def _manifest(
    material: RowMaterial,
    store: BaseStore,
    declaration: Declaration,
    runs: Sequence[SeedRun],
) -> Manifest:
    first = material.seeds[0]
    config = strategy_config(material)
    order = config.strategy.get("restoration") if config else None
    random = isinstance(order, Mapping) and order.get("order") == "random"
    title = declaration.title or f"{material.strategy.replace('_', ' ')}, {material.regime.label}"
    try:
        return Manifest(
            format=FORMAT,
            benchmark=BENCHMARK,
            track="strategy" if config else "checkpoint",
            base=store.manifest_base(),
            strategy=material.strategy,
            run=material.run,
            title=title,
            summary=declaration.summary,
            regime=material.regime,
            control="random_restoration" if random else None,
            config=config,
            asking=_asking(first, store),
            training_data=TrainingData(
                declaration=declaration.training_data,
                test_facts=declaration.test_facts,  # type: ignore[arg-type]
                provided=runs[0].training.sha256 is not None,
            ),
            seeds=tuple(runs),
            licence=declaration.licence,
            contact=declaration.contact,
            created=datetime.date.today(),
            sftknow=__version__,
        )
    except ValidationError as error:
        raise SubmissionError(faults_of(error, "The submission")) from error


def _asking(seed: SeedMaterial, store: BaseStore) -> Asking:
    return asking_of(seed.results["finetuned"], seed.folder or seed.model, store.documents)


def _seed_run(
    folder: Path,
    seed: SeedMaterial,
    store: BaseStore,
    declaration: Declaration,
    elsewhere: Mapping[str, tuple[str, Origin]],
) -> SeedRun:
    weights = _weights(seed)
    recipe = _recipe(folder, seed)
    asked, evidence = _evidence(seed, store, weights, recipe)
    written = None
    if declaration.evidence:
        written = write_evidence(evidence_path(folder, seed.seed), evidence)
    outputs = evidence.outputs_digest()
    contact, origin = elsewhere.get(outputs, (None, None))
    return SeedRun(
        seed=seed.seed,
        evidence=written,
        outputs=outputs if written else None,
        prompts=evidence.prompts_digest() if written else None,
        weights=weights,
        recipe=recipe,
        training=_training(folder, seed, declaration),
        counts=seed_counts(store, asked, evidence.correct, evidence.kl),
        same_as=origin if written and contact == declaration.contact else None,
        chosen=seed.chosen,
        curve=tuple(seed.curve),
        trained_parameters=seed.record.trained_parameters if seed.record else None,
        gpu_hours=declaration.gpu_hours,
    )


def seed_evidence(seed: SeedMaterial, store: BaseStore) -> tuple[Evidence, Counts]:
    """Return the evidence and the counts of a seed, from its outcomes.

    Raises:
        SubmissionError: facts are missing, or our judge says otherwise.
    """
    recipe = seed.recipe
    named = Recipe(sha256="0" * 64, digest=recipe.digest) if recipe else None
    asked, evidence = _evidence(seed, store, _weights(seed), named)
    return evidence, seed_counts(store, asked, evidence.correct, evidence.kl)


def _evidence(
    seed: SeedMaterial, store: BaseStore, weights: Weights, recipe: Recipe | None
) -> tuple[np.ndarray, Evidence]:
    by_id = seed.answers
    domains = {answer.domain for answer in by_id.values()}
    asked = store.positions(None if len(domains) != 1 else domains.pop())
    ids = [store.ids[place] for place in asked]
    if missing := [name for name in ids if name not in by_id]:
        raise SubmissionError(
            f"Seed {seed.seed} has no answers to {len(missing)} of the {len(ids)} test facts of "
            f"'{store.info.id}', such as {missing[0]}. Evaluate on all of them, with --mastery "
            f"{store.folder / 'mastery.parquet'}."
        )
    answers = [by_id[name] for name in ids]
    evidence = Evidence(
        fact_ids=ids,
        outputs=[answer.output for answer in answers],
        prompts=prompt_digests(answer.prompt for answer in answers),
        correct=np.array([answer.right for answer in answers], bool),
        kl=np.array([seed.drift.get(name, np.nan) for name in ids], np.float64),
        identity=identity(
            base=store.info.fingerprint,
            weights=weights.fingerprint,
            recipe=recipe.digest if recipe else None,
            seed=seed.seed,
        ),
        sha256="",
    )
    facts = [_fact(store, place) for place in asked]
    return asked, judged(evidence, facts, _asking(seed, store), f"seed {seed.seed}")


def _fact(store: BaseStore, place: int) -> Fact:
    domain: Domain = "ood" if store.domains[place] == "ood" else "id"
    return Fact(
        store.ids[place],
        store.relations[place],
        domain,
        "test",
        store.subjects[place],
        store.questions[place],
        store.answers[place],
        store.aliases[place],
    )


def _weights(seed: SeedMaterial) -> Weights:
    """Return what recognises the evaluated weights: for a restored model, those before it."""
    record = seed.results["finetuned"]
    revision = record["engine_args"].get("revision")
    return Weights(
        name=Path(seed.model).name[:200] if seed.folder else seed.model,
        revision=str(revision) if revision else None,
        fingerprint=record["fingerprint"],
        checksum=seed.recipe.finetuned.fingerprint if seed.recipe else None,
        files=tuple(_weight_files(seed.folder)) if seed.folder else (),
    )


def _weight_files(folder: Path) -> Iterator[WeightFile]:
    paths = {path for pattern in _WEIGHT_FILES for path in folder.glob(pattern)}
    for path in sorted(paths):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        yield WeightFile(name=path.name, bytes=path.stat().st_size, sha256=found)


def _recipe(folder: Path, seed: SeedMaterial) -> Recipe | None:
    if seed.recipe is None:
        return None
    # Where the models lay is the submitter's own business.
    sources = {
        side: getattr(seed.recipe, side).model_copy(
            update={"name": Path(getattr(seed.recipe, side).name).name}
        )
        for side in ("base", "finetuned")
    }
    recipe = seed.recipe.model_copy(update=sources)
    path = folder / "recipes" / f"seed-{seed.seed}.json"
    recipe.write(path)
    return Recipe(sha256=sha256(path.read_bytes()), digest=recipe.digest)


def _training(folder: Path, seed: SeedMaterial, declaration: Declaration) -> Training:
    record = seed.record
    content = None
    if declaration.training_file is not None:
        content = declaration.training_file.read_bytes()
    elif record is not None and record.stratum is not None:
        content = training_lines(record.fact_ids)
    if content is not None:
        path = folder / "training" / f"seed-{seed.seed}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return Training(
        facts=record.n if record else None,
        facts_digest=record.facts_digest if record else None,
        sha256=sha256(content) if content is not None else None,
    )


def _other_manifests(root: Path) -> list[Manifest]:
    """Return the manifests that are there; those that cannot be read are not ours to report."""
    found = []
    for folder in submission_folders(root, root):
        with contextlib.suppress(SubmissionError):
            found.append(read_manifest(folder))
    return found


def _known_outputs(manifests: Sequence[Manifest]) -> dict[str, tuple[str, Origin]]:
    """Return, by digest of outputs, whose they are and which row's seed has them first."""
    found: dict[str, tuple[str, Origin]] = {}
    for manifest in manifests:
        for run in manifest.seeds:
            if run.outputs and run.same_as is None:
                origin = Origin(row=manifest.row, seed=run.seed)
                found.setdefault(run.outputs, (manifest.contact, origin))
    return found
