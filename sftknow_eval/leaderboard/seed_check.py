"""One seed of a submission: does everything it claims follow from its files?

Nothing submitted is run or loaded as a model: texts, numbers and digests only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.bounded_json import parse_bounded
from sftknow_eval.leaderboard.contained import read_bytes, sha256
from sftknow_eval.leaderboard.contamination import TRAINING_LIMIT, HeldOutFacts, overlap
from sftknow_eval.leaderboard.evidence import Evidence, identity, read_evidence
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.judging import judge_outputs
from sftknow_eval.leaderboard.manifest import Manifest, SeedRun
from sftknow_eval.leaderboard.recount import differences, seed_counts
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.mastery.table import N_STRATA

if TYPE_CHECKING:
    from sftknow_eval.restoration.recipe import Recipe as RestorationRecipe

RECIPE_LIMIT = 8 << 20
_SHOWN = 3
# The protocol measures token drift on in-domain facts of the highest stratum.
_DRIFT_CODE = N_STRATA - 1


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What rows of one base are held against; made once for all of them.

    Attributes:
        prompts: 8 bytes for each fact's prompt by style, where they follow from the question.
        held_out: the test facts as training data is searched for them.
        positions: places of all facts (`both`) and of those of each domain.
    """

    store: BaseStore
    prompts: dict[str, bytes]
    held_out: HeldOutFacts
    positions: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedSeed:
    """What a seed's files hold, once they were found in order.

    Attributes:
        asked: positions in the base's store of the facts that were asked; int (facts).
        correct: verdicts on them; bool (facts).
        restored: elements restored and of the region, from the recipe; None without one.
        contaminated: test facts in the provided training data.
    """

    run: SeedRun
    asked: np.ndarray
    correct: np.ndarray
    restored: tuple[int, int] | None
    contaminated: tuple[str, ...]


def check_seed(
    folder: Path, manifest: Manifest, run: SeedRun, reference: Reference
) -> tuple[CheckedSeed | None, list[str]]:
    """Return what a seed holds, and everything that is wrong with it."""
    reasons: list[str] = []
    evidence = asked = None
    if run.evidence is not None:
        try:
            evidence = read_evidence(folder, run.seed)
            asked = _asked(evidence, reference)
            reasons += _evidence_faults(evidence, manifest, run, reference, asked)
        except SubmissionError as error:
            reasons.append(str(error))
    restored = contaminated = None
    try:
        restored = _restored(folder, manifest, run, reference.store)
    except SubmissionError as error:
        reasons.append(str(error))
    try:
        contaminated = _contaminated(folder, run, reference)
    except SubmissionError as error:
        reasons.append(str(error))
    if reasons:
        return None, [f"seed {run.seed}: {reason}" for reason in reasons]
    nothing = np.zeros(0, np.int64)
    correct = evidence.correct if evidence is not None else np.zeros(0, bool)
    places = asked if asked is not None else nothing
    return CheckedSeed(run, places, correct, restored, tuple(contaminated or ())), []


def _asked(evidence: Evidence, reference: Reference) -> np.ndarray:
    """Return the places of the facts asked: all of the base's, or all of one domain."""
    ids = reference.store.ids
    if evidence.fact_ids == ids:
        return reference.positions["both"]
    for domain in DOMAINS:
        places = reference.positions[domain]
        if len(places) and evidence.fact_ids == [ids[place] for place in places]:
            return places
    raise SubmissionError(f"evidence: {_fact_fault(evidence.fact_ids, reference.store)}")


def _fact_fault(found: Sequence[str], store: BaseStore) -> str:
    counts, known = Counter(found), set(store.ids)
    if unknown := [name for name in counts if name not in known]:
        return (
            f"{len(unknown)} facts are no test facts of '{store.info.id}': {_some(unknown)}; it is "
            "of other facts or another base"
        )
    if twice := [name for name, count in counts.items() if count > 1]:
        return f"{len(twice)} facts stand twice: {_some(twice)}"
    domains = {store.domains[i] for i, name in enumerate(store.ids) if name in counts}
    missing = [
        name
        for name, domain in zip(store.ids, store.domains, strict=True)
        if domain in domains and name not in counts
    ]
    if missing or not found:
        return f"{len(missing)} facts are missing: {_some(missing)}"
    return "the facts are not in the order of the base's store"


def _evidence_faults(
    evidence: Evidence,
    manifest: Manifest,
    run: SeedRun,
    reference: Reference,
    asked: np.ndarray,
) -> Iterator[str]:
    """Yield what in the evidence does not fit the manifest."""
    if evidence.sha256 != run.evidence:
        yield "the evidence is not the file whose digest the manifest names; it was changed"
    wanted = identity(
        base=manifest.base.fingerprint,
        weights=run.weights.fingerprint,
        recipe=run.recipe.digest if run.recipe else None,
        seed=run.seed,
    )
    if other := [key for key in wanted if evidence.identity.get(key) != wanted[key]]:
        yield f"the evidence says that it belongs to another {', another '.join(other)}"
    if evidence.outputs_digest() != run.outputs:
        yield "the outputs are not those whose digest the manifest names"
    if evidence.prompts_digest() != run.prompts:
        yield "the prompts are not those whose digest the manifest names"
    yield from _prompt_faults(evidence, manifest, reference, asked)
    yield from _verdict_faults(evidence, manifest, run, reference.store, asked)


def _prompt_faults(
    evidence: Evidence, manifest: Manifest, reference: Reference, asked: np.ndarray
) -> Iterator[str]:
    expected = reference.prompts.get(manifest.asking.style)
    if expected is None or manifest.asking.num_fewshot:
        return
    wanted = np.frombuffer(expected, np.uint64)[asked]
    differing = np.flatnonzero(np.frombuffer(evidence.prompts, np.uint64) != wanted)
    if len(differing):
        names = [evidence.fact_ids[place] for place in differing[:_SHOWN]]
        yield (
            f"{len(differing)} prompts are not those of the style '{manifest.asking.style}': "
            f"{_some(names, len(differing))}; samples were swapped, or asked otherwise"
        )


def _verdict_faults(
    evidence: Evidence, manifest: Manifest, run: SeedRun, store: BaseStore, asked: np.ndarray
) -> Iterator[str]:
    aliases = store.aliases
    if len(asked) < len(aliases):
        aliases = [aliases[place] for place in asked]
    verdicts = judge_outputs(evidence.outputs, aliases, manifest.asking)
    wrong = np.flatnonzero(verdicts != evidence.correct)
    if len(wrong):
        names = [evidence.fact_ids[place] for place in wrong[:_SHOWN]]
        yield (f"{len(wrong)} verdicts do not follow from the outputs: {_some(names, len(wrong))}")
    measured = ~np.isnan(evidence.kl)
    if (store.code[asked][measured] != _DRIFT_CODE).any():
        yield "token drift is given for facts that are not in-domain facts of stratum 4"
    yield from differences(run.counts, seed_counts(store, asked, verdicts, evidence.kl))


def _restored(
    folder: Path, manifest: Manifest, run: SeedRun, store: BaseStore
) -> tuple[int, int] | None:
    """Return restored and all elements of the region, from the recipe."""
    if run.recipe is None or run.recipe.sha256 is None:
        return None
    from sftknow_eval.restoration.recipe import Recipe as RestorationRecipe

    name = f"recipes/seed-{run.seed}.json"
    content = read_bytes(folder / name, folder, RECIPE_LIMIT)
    if sha256(content) != run.recipe.sha256:
        raise SubmissionError(f"{name} is not the file whose digest the manifest names.")
    try:
        recipe = RestorationRecipe.model_validate(parse_bounded(content, name))
    except ValidationError as error:
        raise SubmissionError(faults_of(error, name)) from error
    faults = list(_recipe_faults(recipe, manifest, run, store))
    if faults:
        raise SubmissionError(f"{name}: {'; '.join(faults)}.")
    return recipe.restored, recipe.elements


def _recipe_faults(
    recipe: RestorationRecipe, manifest: Manifest, run: SeedRun, store: BaseStore
) -> Iterator[str]:
    if recipe.digest != (run.recipe.digest if run.recipe else None):
        yield "it does not do what the manifest says"
    if recipe.base.fingerprint != store.info.checksum:
        yield "it restores another base"
    if recipe.finetuned.fingerprint != run.weights.checksum:
        yield "it was made for another fine-tune"
    if (manifest.control == "random_restoration") != (recipe.order == "random"):
        yield f"its order is '{recipe.order}': controls of random restoration are random, no others"
    if not recipe.effective_restored <= recipe.restored <= recipe.elements >= recipe.changed:
        yield "its numbers of elements contradict each other"
    if recipe.tensors:
        parts = recipe.tensors.values()
        sums = (sum(p.restored for p in parts), sum(p.elements for p in parts))
        if sums != (recipe.restored, recipe.elements):
            yield "its tensors do not add up to its numbers of elements"
    elif recipe.restored:
        yield "it restores elements, but names no tensors"


def _contaminated(folder: Path, run: SeedRun, reference: Reference) -> list[str]:
    if run.training.sha256 is None:
        return []
    name = f"training/seed-{run.seed}.jsonl"
    content = read_bytes(folder / name, folder, TRAINING_LIMIT)
    if sha256(content) != run.training.sha256:
        raise SubmissionError(f"{name} is not the file whose digest the manifest names.")
    return overlap(content, reference.held_out, name)


def _some(names: Sequence[str], n: int | None = None) -> str:
    n = len(names) if n is None else n
    listed = ", ".join(repr(name[:60]) for name in names[:_SHOWN])
    return f"{listed} and {n - _SHOWN} more" if n > _SHOWN else listed
