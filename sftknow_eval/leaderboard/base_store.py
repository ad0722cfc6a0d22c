"""A base's store, once for all rows of the base: its mastery table, its facts, its own answers.

    leaderboard/mastery/BASE/
        base.json         what the base is, how it was asked, digests of the other files
        mastery.parquet   the mastery table, as probed
        facts.parquet     the test facts in the order of all evidence: question, answer, aliases
        base.parquet      the base's answers, completing the best template (as evidence)

The facts are held to the digests in the mastery table, which in turn follows from the stored
verdicts of every sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from sftknow_eval.errors import MasteryError, SubmissionError
from sftknow_eval.evaluation.prompts import Style, question_prompt
from sftknow_eval.leaderboard.bounded_json import parse_bounded, read_bounded
from sftknow_eval.leaderboard.contained import read_bytes, sha256
from sftknow_eval.leaderboard.evidence import (
    Evidence,
    identity,
    prompt_digests,
    read_evidence_file,
)
from sftknow_eval.leaderboard.faults import faults_of
from sftknow_eval.leaderboard.judging import judge_outputs
from sftknow_eval.leaderboard.manifest_parts import Asking, Base
from sftknow_eval.leaderboard.parquet_guard import Limits, check_parquet, read_table
from sftknow_eval.leaderboard.texts import Hex, Line, Slug
from sftknow_eval.mastery.facts import DOMAINS, Fact
from sftknow_eval.mastery.relations import no_text
from sftknow_eval.mastery.table import N_STRATA, MasteryTable
from sftknow_eval.mastery.table_meta import read_meta, table_schema

FORMAT: Literal["sftknow-base/1"] = "sftknow-base/1"
INFO_NAME = "base.json"
MASTERY_FILE = "mastery.parquet"
FACTS_FILE = "facts.parquet"
BASE_FILE = "base.parquet"
FACTS_SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("id", "relation", "domain", "split", "subject", "question", "answer")
        ),
        # The aliases as a JSON list: no nested columns anywhere.
        pa.field("aliases", pa.string(), nullable=False),
    ]
)
_LIMITS = Limits(text=65_536)
_JSON_LIMIT = 256 << 10
_MAX_SAMPLES = 10_000


class Files(BaseModel):
    """SHA-256 of the store's files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mastery: Hex
    facts: Hex
    base: Hex


class BaseInfo(BaseModel):
    """What `base.json` says.

    Attributes:
        checksum: of its weights, as recipes recognise them.
        data: name of the data set.
        asking: how the base was asked: completing the best template of each relation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["sftknow-base/1"] = FORMAT
    id: Slug
    name: Line
    revision: Line | None
    fingerprint: Hex
    checksum: Hex
    data: Line
    asking: Asking
    files: Files


@dataclass(frozen=True, slots=True, eq=False)
class BaseStore:
    """A base's facts with their strata, and its own answers.

    Lists and arrays stand in one order, that of `ids`.

    Attributes:
        info: of `base.json`.
        table: the mastery table (train and dev facts too, where they were probed).
        strata: 0 to 4; int (facts).
        code: 5 x (0 for ID, 1 for OOD) + stratum; int (facts).
        subject_code: a number for each subject; int (facts).
        aliases: accepted answers, the answer itself first.
        knows: whether the base's own answer is right; bool (facts).
        outputs: the base's own answers.
        documents: SHA-256 over all facts asked: ids, questions, accepted answers.
    """

    folder: Path
    info: BaseInfo
    table: MasteryTable
    ids: list[str]
    relations: list[str]
    domains: list[str]
    subjects: list[str]
    questions: list[str]
    answers: list[str]
    aliases: list[tuple[str, ...]]
    strata: np.ndarray
    code: np.ndarray
    subject_code: np.ndarray
    knows: np.ndarray
    outputs: list[str]
    documents: str

    def manifest_base(self) -> Base:
        """Return what a manifest says of this base."""
        info = self.info
        return Base(
            id=info.id,
            name=info.name,
            revision=info.revision,
            fingerprint=info.fingerprint,
            mastery=info.files.mastery,
            facts=info.files.facts,
        )

    def positions(self, domain: str | None = None) -> np.ndarray:
        """Return the positions of all facts, or of those of one domain; int (facts)."""
        if domain is None:
            return np.arange(len(self.ids))
        return np.flatnonzero(np.array(self.domains) == domain)


def prompts_of(store: BaseStore, style: Style) -> bytes | None:
    """Return 8 bytes for each fact's prompt, where the prompt follows from the question.

    That is so for `paper` and `plain` without shots; a chat template is the model's own.
    """
    if style not in ("paper", "plain"):
        return None
    return prompt_digests(question_prompt(style, question) for question in store.questions)


def documents_digest(facts: Sequence[Fact]) -> str:
    """Return the SHA-256 over facts: ids, questions and accepted answers."""
    return sha256(b"".join(fact.digest() for fact in facts))


def load_base(folder: Path) -> BaseStore:
    """Return a base's store after everything in it was held together.

    Raises:
        SubmissionError: a file is missing or malformed, a digest differs, the facts are not those
            of the mastery table, or the base's verdicts do not follow from its answers.
    """
    try:
        info = BaseInfo.model_validate(read_bounded(folder / INFO_NAME, folder, _JSON_LIMIT))
    except ValidationError as error:
        raise SubmissionError(faults_of(error, INFO_NAME)) from error
    contents = {
        name: read_bytes(folder / name, folder, _LIMITS.bytes)
        for name in (MASTERY_FILE, FACTS_FILE)
    }
    _check_digests(info, contents, folder)
    table = _mastery(contents[MASTERY_FILE], folder / MASTERY_FILE)
    if table.meta.fingerprint != info.fingerprint:
        raise SubmissionError(
            f"{INFO_NAME} names a base of fingerprint {info.fingerprint[:16]}; the mastery table "
            f"is of {table.meta.fingerprint[:16]}."
        )
    return _store(folder, info, table, _facts(contents[FACTS_FILE]))


def _check_digests(info: BaseInfo, contents: dict[str, bytes], folder: Path) -> None:
    if info.id != folder.name:
        raise SubmissionError(f"{INFO_NAME} names the base '{info.id}'; its folder is another.")
    for name, wanted in ((MASTERY_FILE, info.files.mastery), (FACTS_FILE, info.files.facts)):
        if (found := sha256(contents[name])) != wanted:
            raise SubmissionError(
                f"{name} has the digest {found[:16]}; {INFO_NAME} says {wanted[:16]}. The file "
                "was changed."
            )


def _mastery(content: bytes, path: Path) -> MasteryTable:
    check_parquet(content, _LIMITS, MASTERY_FILE)
    try:
        meta = read_meta(path, pq.read_schema(pa.BufferReader(content)))
        if not (isinstance(meta.n_samples, int) and 0 < meta.n_samples <= _MAX_SAMPLES):
            raise SubmissionError(f"{MASTERY_FILE} claims {meta.n_samples!r:.40} samples a fact.")
        read_table(content, table_schema(meta), _LIMITS, MASTERY_FILE)
        return MasteryTable.read(path)
    except MasteryError as error:
        raise SubmissionError(f"{MASTERY_FILE}: {error}") from error
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise SubmissionError(f"{MASTERY_FILE} is not a mastery table: {error}") from error


def _facts(content: bytes) -> list[Fact]:
    rows = read_table(content, FACTS_SCHEMA, _LIMITS, FACTS_FILE).to_pylist()
    facts = []
    for row in rows:
        aliases = parse_bounded(row["aliases"].encode(), f"{FACTS_FILE}: aliases")
        if not (isinstance(aliases, list) and aliases and not any(map(no_text, aliases))):
            raise SubmissionError(f"{FACTS_FILE}: the aliases of {row['id']!r:.60} are no texts.")
        if row["domain"] not in DOMAINS or row["split"] != "test":
            raise SubmissionError(f"{FACTS_FILE}: {row['id']!r:.60} is not a test fact.")
        facts.append(Fact(**{**row, "aliases": tuple(aliases)}))
    ids = [fact.id for fact in facts]
    if ids != sorted(set(ids)) or not ids:
        raise SubmissionError(f"{FACTS_FILE} is empty, or its facts are not in order, each once.")
    return facts


def _store(folder: Path, info: BaseInfo, table: MasteryTable, facts: list[Fact]) -> BaseStore:
    try:
        strata_by_id = table.strata_of(facts)
    except MasteryError as error:
        raise SubmissionError(f"{FACTS_FILE}: {error}") from error
    probed = {
        name
        for name, split in zip(
            table.rows["fact_id"].to_pylist(), table.rows["split"].to_pylist(), strict=True
        )
        if split == "test"
    }
    if probed != {fact.id for fact in facts} or len(strata_by_id) != len(facts):
        raise SubmissionError(f"{FACTS_FILE} does not hold the test facts of {MASTERY_FILE}.")
    documents = documents_digest(facts)
    if info.asking.documents != documents:
        raise SubmissionError(f"{INFO_NAME} is about other facts than {FACTS_FILE}.")
    strata = np.array([strata_by_id[fact.id] for fact in facts], np.int64)
    out_of_domain = np.array([fact.domain == "ood" for fact in facts])
    own = _own_answers(folder, info, facts)
    return BaseStore(
        folder=folder,
        info=info,
        table=table,
        ids=[fact.id for fact in facts],
        relations=[fact.relation for fact in facts],
        domains=[fact.domain for fact in facts],
        subjects=[fact.subject for fact in facts],
        questions=[fact.question for fact in facts],
        answers=[fact.answer for fact in facts],
        aliases=[fact.aliases for fact in facts],
        strata=strata,
        code=N_STRATA * out_of_domain + strata,
        subject_code=np.unique([fact.subject for fact in facts], return_inverse=True)[1],
        knows=own.correct,
        outputs=own.outputs,
        documents=documents,
    )


def _own_answers(folder: Path, info: BaseInfo, facts: Sequence[Fact]) -> Evidence:
    own = read_evidence_file(folder / BASE_FILE, folder)
    if own.sha256 != info.files.base:
        raise SubmissionError(f"{BASE_FILE} is not the file that {INFO_NAME} names.")
    said = identity(base=info.fingerprint, weights=info.fingerprint, recipe=None, seed=0)
    if dict(own.identity) != said:
        raise SubmissionError(f"{BASE_FILE} is evidence of another model than the base.")
    if own.fact_ids != [fact.id for fact in facts]:
        raise SubmissionError(f"{BASE_FILE} is not about the facts of {FACTS_FILE}.")
    verdicts = judge_outputs(own.outputs, [fact.aliases for fact in facts], info.asking)
    if not np.array_equal(verdicts, own.correct):
        raise SubmissionError(f"{BASE_FILE}: verdicts do not follow from the outputs.")
    return own
