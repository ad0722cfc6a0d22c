"""Write a base's store: once, when its first row is submitted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_folder, write_json
from sftknow_eval.errors import SettingsError, SubmissionError
from sftknow_eval.leaderboard.asking import asking_of, judged
from sftknow_eval.leaderboard.base_store import (
    BASE_FILE,
    FACTS_FILE,
    FACTS_SCHEMA,
    INFO_NAME,
    MASTERY_FILE,
    BaseInfo,
    BaseStore,
    Files,
    documents_digest,
    load_base,
)
from sftknow_eval.leaderboard.contained import sha256
from sftknow_eval.leaderboard.evidence import Evidence, identity, prompt_digests, write_evidence
from sftknow_eval.leaderboard.material import Answer
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseMaterial:
    """What a base's store is made from.

    Attributes:
        id: name of its folder.
        name: what it is called, with the `revision` of a hub id.
        model: its folder.
        table: its mastery table.
        record: what the results say of the base: style, backend, versions.
        answers: its own, to all test facts of the table, by fact id.
    """

    id: str
    name: str
    revision: str | None
    model: Path
    table: MasteryTable
    dataset: Dataset
    record: Mapping[str, Any]
    answers: Mapping[str, Answer]


def base_store(root: Path, material: BaseMaterial) -> BaseStore:
    """Return a base's store, which is written if it is not there.

    Raises:
        SettingsError: another base, table or other facts stand under this id, or the base's
            answers do not cover the test facts.
        SubmissionError: the store that is there does not hold together.
    """
    folder = root / "mastery" / material.id
    if not folder.exists():
        _write(folder, material)
    store = load_base(folder)
    if not material.table.rows.equals(store.table.rows):
        raise SettingsError(
            f"The base '{material.id}' of {root} has another mastery table than the one given; "
            f"rows are compared on one. Evaluate with --mastery {folder / MASTERY_FILE}, or name "
            "another base with --base-id."
        )
    return store


def asked_facts(dataset: Dataset, table: MasteryTable) -> list[Fact]:
    """Return the test facts that a mastery table holds, in the order of all evidence."""
    facts = dataset.probe_facts(splits=("test",))
    held = table.strata_of(facts)
    return sorted((fact for fact in facts if fact.id in held), key=lambda fact: fact.id)


def _write(folder: Path, material: BaseMaterial) -> None:
    from sftknow_eval.models import weight_fingerprint

    table = material.table
    table.check_base(weight_fingerprint(material.model))
    facts = asked_facts(material.dataset, table)
    asking = asking_of(material.record, material.model, documents_digest(facts))
    evidence = _evidence(facts, material, asking.style, table.meta.fingerprint)
    with atomic_folder(folder) as partial:
        table.write(partial / MASTERY_FILE)
        _write_facts(partial / FACTS_FILE, facts)
        base = write_evidence(partial / BASE_FILE, judged(evidence, facts, asking, "the base"))
        info = BaseInfo(
            id=material.id,
            name=material.name,
            revision=material.revision,
            fingerprint=table.meta.fingerprint,
            checksum=recipe_checksum(material.model),
            data=material.dataset.name,
            asking=asking,
            files=Files(
                mastery=sha256((partial / MASTERY_FILE).read_bytes()),
                facts=sha256((partial / FACTS_FILE).read_bytes()),
                base=base,
            ),
        )
        write_json(partial / INFO_NAME, info.model_dump(mode="json"))


def _evidence(
    facts: Sequence[Fact], material: BaseMaterial, style: str, fingerprint: str
) -> Evidence:
    by_id = material.answers
    missing = [fact.id for fact in facts if fact.id not in by_id]
    if missing or style != "completion":
        raise SettingsError(
            f"The base's store needs its own answers to all {len(facts)} test facts, completing "
            f"its best templates; {len(missing)} are missing (style '{style}'). Evaluate without "
            "--limit, --facts and --relations, with the base beside the fine-tune."
        )
    answers = [by_id[fact.id] for fact in facts]
    return Evidence(
        fact_ids=[fact.id for fact in facts],
        outputs=[answer.output for answer in answers],
        prompts=prompt_digests(answer.prompt for answer in answers),
        correct=np.array([answer.right for answer in answers], bool),
        kl=np.full(len(facts), np.nan),
        identity=identity(base=fingerprint, weights=fingerprint, recipe=None, seed=0),
        sha256="",
    )


def _write_facts(path: Path, facts: Sequence[Fact]) -> None:
    names = [name for name in FACTS_SCHEMA.names if name != "aliases"]
    columns = {name: [getattr(fact, name) for fact in facts] for name in names}
    columns["aliases"] = [json.dumps(fact.aliases, ensure_ascii=False) for fact in facts]
    pq.write_table(pa.Table.from_pydict(columns, schema=FACTS_SCHEMA), path, compression="zstd")


def recipe_checksum(model: Path) -> str:
    """Return the fingerprint by which recipes recognise a model's weights."""
    from sftknow_eval.restoration.checkpoint import Checkpoint
    from sftknow_eval.restoration.run import checksums, fingerprint

    with Checkpoint.open(model) as weights:
        return fingerprint(weights, checksums(weights, sorted(weights.tensors)))


def known_base(root: Path, fingerprint: str) -> str | None:
    """Return the id of the base with these weights, if the leaderboard has one.

    Raises:
        SubmissionError: several have; `--base-id` says which.
    """
    found = []
    for path in sorted((root / "mastery").glob(f"*/{INFO_NAME}")):
        info = BaseInfo.model_validate_json(path.read_text(encoding="utf-8"))
        found += [info.id] if info.fingerprint == fingerprint else []
    if len(found) > 1:
        raise SubmissionError(
            f"The bases {', '.join(found)} have the same weights; say which with --base-id."
        )
    return found[0] if found else None
