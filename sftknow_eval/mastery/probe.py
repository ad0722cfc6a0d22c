"""The prober: facts x templates x samples -> verdict bits -> the mastery table.

Requests stream lazily into a sampler and results come back in any order. A chunk of facts is
held in memory until its last verdict is in, then written as a shard; a probe that was killed
goes on from its shards and ends in the same bytes, since every (fact, template) draws from a
random stream of its own.

Source: section 3.1, appendix F.1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.errors import MasteryError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.probe_settings import ProbeSettings, select_facts
from sftknow_eval.mastery.sampling import Request, Sampler, request_seed
from sftknow_eval.mastery.shards import ProbeFolder
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts

if TYPE_CHECKING:
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.templates import Templates


@dataclass(frozen=True, slots=True)
class ProbeProgress:
    """How far a probe is; work of an earlier run counts as done but not for the rate.

    Attributes:
        facts: facts in all, of which `facts_before` were done by earlier runs.
        prompts_new: prompts answered in this run, of `prompts_left` at its start, in
            `seconds` of sampling.
    """

    facts: int
    facts_before: int
    prompts_per_fact: int
    prompts_new: int
    prompts_left: int
    seconds: float

    @property
    def facts_done(self) -> int:
        """Return the facts done, by the number of prompts answered."""
        return self.facts_before + self.prompts_new // self.prompts_per_fact


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """Where the table is, and how much of it this run computed."""

    table: Path
    facts: int
    facts_new: int


class _Chunk:
    """Verdicts of one chunk of facts while its results come in."""

    __slots__ = ("left", "texts", "verdicts")

    def __init__(self, n_requests: int, n_samples: int, keep_texts: bool) -> None:
        self.left = n_requests
        self.verdicts = bytearray(n_requests * n_samples)
        self.texts: list[list[str]] | None = [[]] * n_requests if keep_texts else None

    def add(self, slot: int, texts: list[str], aliases: tuple[str, ...]) -> None:
        known = {text: contains(text, aliases) for text in set(texts)}
        n_samples = len(texts)
        self.verdicts[slot * n_samples : (slot + 1) * n_samples] = bytes(
            map(known.__getitem__, texts)
        )
        if self.texts is not None:
            self.texts[slot] = texts
        self.left -= 1


class _Probe:
    """One run: what is asked for, what is there, and what is on its way."""

    def __init__(
        self, facts: Sequence[Fact], templates: Templates, settings: ProbeSettings
    ) -> None:
        self.facts = facts
        self.templates = templates
        self.settings = settings
        size = settings.chunk_facts
        self.chunks = [facts[start : start + size] for start in range(0, len(facts), size)]
        n_bits = templates.count * settings.n_samples
        self.packed = np.zeros((len(facts), -(-n_bits // 8)), np.uint8)
        self.todo: list[int] = []

    def load(self, folder: ProbeFolder) -> None:
        """Take over the shards of earlier runs."""
        width = self.packed.shape[1]
        for number, facts in enumerate(self.chunks):
            shard = folder.read_shard(number, facts, width, self.settings.keep_completions)
            if shard is None:
                self.todo.append(number)
            else:
                self._place(number, shard)

    def requests(self) -> Iterator[Request]:
        """Yield the requests of all chunks that are left, facts outermost."""
        n_templates, seed = self.templates.count, self.settings.seed
        for number in self.todo:
            first = number * self.settings.chunk_facts
            for position, fact in enumerate(self.chunks[number], first):
                stops = fact.aliases if self.settings.answer_stop else ()
                for template in range(n_templates):
                    yield Request(
                        position * n_templates + template,
                        self.templates.prompt(fact, template),
                        request_seed(seed, fact.id, template),
                        stops,
                    )

    def run(
        self,
        sampler: Sampler,
        folder: ProbeFolder,
        on_progress: Callable[[ProbeProgress], None] | None,
    ) -> None:
        """Sample what is left, writing each chunk when its last result is in."""
        n_templates, size = self.templates.count, self.settings.chunk_facts
        waiting = set(self.todo)
        in_flight: dict[int, _Chunk] = {}
        begin = time.monotonic()
        results = sampler.sample(self.requests())
        for prompts_new, (index, texts) in enumerate(results, 1):
            position = index // n_templates
            number = position // size
            chunk = in_flight.get(number)
            if chunk is None:
                chunk = in_flight[number] = self._open(number, waiting)
            self._check(texts)
            chunk.add(index - number * size * n_templates, texts, self.facts[position].aliases)
            if chunk.left == 0:
                self._finish(number, in_flight.pop(number), folder)
            if on_progress and prompts_new % n_templates == 0:
                on_progress(self._progress(prompts_new, time.monotonic() - begin))
        if waiting or in_flight:
            raise RuntimeError(
                f"the sampler ended without all results of {len(waiting) + len(in_flight)} chunks"
            )

    @property
    def facts_left(self) -> int:
        """Return how many facts earlier runs left to do."""
        return sum(len(self.chunks[number]) for number in self.todo)

    def table(self, record: dict[str, Any], engine: dict[str, Any]) -> MasteryTable:
        """Return the finished table."""
        settings = self.settings
        meta = TableMeta(
            base=settings.base,
            revision=settings.revision,
            fingerprint=settings.fingerprint,
            data=record["data"],
            facts_digest=record["facts_digest"],
            templates_digest=self.templates.digest,
            n_templates=self.templates.count,
            samples_per_template=settings.n_samples,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
            answer_stop=settings.answer_stop,
            selection={name: record[name] for name in ("splits", "relations", "limit")},
            engine={"backend": settings.backend, **engine},
        )
        return MasteryTable.build(self.facts, self.packed, meta)

    def _progress(self, prompts_new: int, seconds: float) -> ProbeProgress:
        n_templates = self.templates.count
        return ProbeProgress(
            facts=len(self.facts),
            facts_before=len(self.facts) - self.facts_left,
            prompts_per_fact=n_templates,
            prompts_new=prompts_new,
            prompts_left=self.facts_left * n_templates,
            seconds=seconds,
        )

    def _open(self, number: int, waiting: set[int]) -> _Chunk:
        waiting.remove(number)
        return _Chunk(
            len(self.chunks[number]) * self.templates.count,
            self.settings.n_samples,
            self.settings.keep_completions,
        )

    def _check(self, texts: list[str]) -> None:
        if len(texts) != self.settings.n_samples:
            raise RuntimeError(
                f"the sampler gave {len(texts)} completions for {self.settings.n_samples} asked"
            )

    def _finish(self, number: int, chunk: _Chunk, folder: ProbeFolder) -> None:
        verdicts = np.frombuffer(chunk.verdicts, np.uint8).reshape(len(self.chunks[number]), -1)
        packed = pack_verdicts(verdicts)
        folder.write_shard(number, self.chunks[number], packed, chunk.texts)
        self._place(number, packed)

    def _place(self, number: int, packed: np.ndarray) -> None:
        start = number * self.settings.chunk_facts
        self.packed[start : start + len(packed)] = packed


def probe(
    dataset: Dataset,
    templates: Templates,
    open_sampler: Callable[[], Sampler],
    out: Path,
    settings: ProbeSettings,
    *,
    on_progress: Callable[[ProbeProgress], None] | None = None,
) -> ProbeOutcome:
    """Probe the selected facts and write the mastery table into `out`.

    Args:
        dataset: where the facts come from.
        templates: completion templates of every selected relation.
        open_sampler: called once if there is work; the caller closes the sampler.
        out: folder for settings, shards and table.
        settings: see `ProbeSettings`.
        on_progress: called after every few prompts.

    Raises:
        SettingsError: nothing is selected, `out` cannot be written or is in use, or it holds
            a probe with other settings.
        OutOfSpace: the disk is full; the finished shards stay.
    """
    facts = select_facts(dataset, settings)
    record = settings.record(facts, dataset, templates)
    folder = ProbeFolder(out, record)
    with folder.locked():
        folder.claim()
        if _finished(folder, len(facts)):
            return ProbeOutcome(folder.table, len(facts), 0)
        run = _Probe(facts, templates, settings)
        run.load(folder)
        engine = folder.engine()
        if run.todo or engine is None:
            sampler = open_sampler()
            engine = folder.check_engine(sampler.describe())
            run.run(sampler, folder, on_progress)
        run.table(record, engine).write(folder.table)
    return ProbeOutcome(folder.table, len(facts), run.facts_left)


def _finished(folder: ProbeFolder, n_facts: int) -> bool:
    if not folder.table.exists():
        return False
    try:
        return len(MasteryTable.read(folder.table)) == n_facts
    except MasteryError:
        return False
