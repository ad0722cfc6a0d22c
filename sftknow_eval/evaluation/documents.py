"""Facts as lm-eval documents: one list for each domain and stratum, read once a process.

Documents are plain dictionaries with the finished prompt in a field: lm-eval takes a field in
microseconds where a Jinja template takes milliseconds, and ten leaves share one reading.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from sftknow_eval.errors import DataError, MasteryError, SettingsError
from sftknow_eval.evaluation.prompts import Style, completion_prompt, question_prompt
from sftknow_eval.evaluation.settings import SPLITS, TaskSettings
from sftknow_eval.mastery.dataset import Dataset, open_dataset
from sftknow_eval.mastery.facts import DOMAINS, Domain, Fact
from sftknow_eval.mastery.find import find_mastery
from sftknow_eval.mastery.table import N_STRATA, BestTemplate, MasteryTable, half
from sftknow_eval.mastery.templates import Templates, load_templates

logger = logging.getLogger(__name__)

_SHOWN = 5

Document = dict[str, Any]


class Documents(list[Document]):
    """Documents in the shape that lm-eval expects of a data set: a list with field names."""

    @property
    def features(self) -> dict[str, None]:
        """Return the fields of a document, as the keys of a dictionary."""
        return dict.fromkeys(self[0])


@dataclass(frozen=True, slots=True)
class Renderer:
    """Puts facts in words, in one prompt style."""

    style: Style
    templates: Templates | None = None
    best: dict[tuple[str, int], BestTemplate] = field(default_factory=dict)

    def document(self, fact: Fact, stratum: int) -> Document:
        """Return the document of a fact; with it alone, an output can be judged again."""
        template, how = None, None
        if self.templates is None:
            prompt = question_prompt(self.style, fact.question)
        else:
            chosen = self.best[fact.relation, half(fact.digest())]
            template, how = chosen.index, chosen.how
            prompt = completion_prompt(fact, self.templates, template)
        return {
            "id": fact.id,
            "relation": fact.relation,
            "domain": fact.domain,
            "split": fact.split,
            "stratum": stratum,
            "subject": fact.subject,
            "question": fact.question,
            "answer": fact.answer,
            "aliases": list(fact.aliases),
            "style": self.style,
            "template": template,
            "template_choice": how,
            "prompt": prompt,
            "target": fact.answer,
        }

    def sentinel(self, domain: Domain, stratum: int) -> Document:
        """Return the document that holds the place of an empty stratum; it is never judged.

        lm-eval cannot run a task without documents.
        """
        nothing = Fact("", "", domain, "test", "", "", "", ())
        empty = Renderer("plain").document(nothing, stratum)
        return empty | {"style": self.style, "prompt": "This stratum holds no facts."}


class ShotPool:
    """Train facts to draw shots from: read when shots are asked for, never tested facts."""

    def __init__(self, dataset: Dataset, renderer: Renderer, tested: Sequence[Fact]) -> None:
        self._dataset = dataset
        self._renderer = renderer
        self._tested = tested
        self._drawn: dict[tuple[int, int | None], list[Document]] = {}

    def draw(self, n: int, seed: int | None) -> list[Document]:
        """Return `n` documents, the same for equal seeds.

        ID train facts only, as OOD relations are for testing; none shares its subject with a
        tested fact, so that no shot gives an answer away.

        Raises:
            SettingsError: fewer than `n` facts are left.
        """
        if n and (n, seed) not in self._drawn:
            subjects = {fact.subject for fact in self._tested}
            pool = [
                f for f in self._dataset.facts("train", domain="id") if f.subject not in subjects
            ]
            if len(pool) < n:
                raise SettingsError(
                    f"{n} shots are asked for, but only {len(pool)} ID train facts of "
                    f"'{self._dataset.name}' are about no tested subject. Ask for fewer shots, or "
                    "test fewer facts (--metadata: split, facts, relations)."
                )
            chosen = Random(seed).sample(pool, n)
            self._drawn[n, seed] = [self._renderer.document(fact, -1) for fact in chosen]
        return self._drawn[n, seed] if n else []


@dataclass(frozen=True, slots=True)
class TaskData:
    """All documents of a run, and the record of what they are.

    Attributes:
        leaves: documents by domain and stratum; an empty stratum is an empty list.
        shots: where few-shot examples come from.
        record: what goes into the results: style, split, data, mastery table, counts.
    """

    leaves: dict[tuple[Domain, int], Documents]
    renderer: Renderer
    shots: ShotPool
    record: dict[str, Any]

    def leaf(self, domain: Domain, stratum: int) -> Documents:
        """Return the documents of one leaf, or a sentinel for an empty one."""
        documents = self.leaves[domain, stratum]
        return documents or Documents([self.renderer.sentinel(domain, stratum)])


@functools.lru_cache(maxsize=4)
def load_task_data(settings: TaskSettings) -> TaskData:
    """Return the documents that the settings select; equal settings are read once.

    Raises:
        DataError, TemplateError: the facts or templates cannot be read.
        MasteryError: no mastery table, or one of other facts or of another base.
        SettingsError: unknown relations, or facts that are not there.
    """
    table = _table(settings)
    dataset = open_dataset(settings.data)
    facts = _facts(dataset, settings)
    strata = table.strata_of(facts)
    renderer = _renderer(dataset, settings, table)
    leaves = {(d, s): Documents() for d in DOMAINS for s in range(N_STRATA)}
    tested = [fact for fact in facts if fact.id in strata]
    # In the order of their digests, so that --limit takes a sample and not one relation.
    for fact in sorted(tested, key=Fact.digest):
        leaves[fact.domain, strata[fact.id]].append(renderer.document(fact, strata[fact.id]))
    if settings.facts and len(tested) < len(facts):
        raise MasteryError(
            f"{len(facts) - len(tested)} of the {len(facts)} facts in {settings.facts} are not in "
            f"the mastery table of '{table.meta.base}', for example "
            f"{_some(fact.id for fact in facts if fact.id not in strata)}. Probe them, or take "
            "them out of the file."
        )
    if len(tested) < len(facts):
        logger.warning(
            "%d of %d facts are not in the mastery table of '%s' and are left out.",
            *(len(facts) - len(tested), len(facts), table.meta.base),
        )
    record = _record(settings, dataset, table, renderer, len(tested), len(facts))
    return TaskData(leaves, renderer, ShotPool(dataset, renderer, tested), record)


def _table(settings: TaskSettings) -> MasteryTable:
    base = settings.base
    if settings.base_fingerprint and not (base and Path(base).is_dir()):
        base = settings.base_fingerprint
    table = find_mastery(explicit=settings.mastery, base=base, model=settings.model)
    if settings.base_fingerprint:
        table.check_base(settings.base_fingerprint)
    return table


def _facts(dataset: Dataset, settings: TaskSettings) -> list[Fact]:
    if unknown := [r for r in settings.relations if r not in dataset.relations]:
        raise SettingsError(
            f"Unknown relation {_some(unknown)}; '{dataset.name}' has "
            f"{', '.join(dataset.relations)}."
        )
    relations = list(settings.relations) or None
    if settings.facts is None:
        return dataset.probe_facts(splits=(settings.split,), relations=relations)
    wanted = _fact_ids(Path(settings.facts))
    splits = [split for split in SPLITS if any(f"-{split}-" in name for name in wanted)]
    facts = dataset.probe_facts(splits=tuple(splits), relations=relations)
    found = [fact for fact in facts if fact.id in wanted]
    if len(found) < len(wanted):
        missing = wanted.keys() - {fact.id for fact in found}
        raise SettingsError(
            f"{settings.facts}: {len(missing)} of {len(wanted)} ids are no fact of "
            f"'{dataset.name}'{' in the relations given' if relations else ''}, for example "
            f"{_some(sorted(missing))}. An id looks like P17-test-0003; 'sftknow facts' shows "
            "what is kept."
        )
    return found


def _fact_ids(path: Path) -> dict[str, None]:
    """Return the ids in a file: a JSON list, or one a line with # for comments."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file of fact ids {path} is not readable: {error}") from error
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} begins like a JSON list but is none: {error}") from error
    else:
        names = [line.partition("#")[0].strip() for line in text.splitlines()]
    ids = dict.fromkeys(str(name) for name in names if name)
    if not ids:
        raise DataError(f"{path} holds no fact ids. Give one a line, as in P17-test-0003.")
    return ids


def _renderer(dataset: Dataset, settings: TaskSettings, table: MasteryTable) -> Renderer:
    style = settings.style or "plain"
    if style != "completion":
        return Renderer(style)
    source = Path(settings.templates) if settings.templates else dataset.templates_file
    held = set(table.rows["relation"].unique().to_pylist())
    probed = [relation for name, relation in dataset.relations.items() if name in held]
    templates = load_templates(source, probed)
    if templates.digest != table.meta.templates_digest:
        raise MasteryError(
            f"The templates in {source} are not those that the mastery table of "
            f"'{table.meta.base}' was probed with, so its best templates are unknown here. Name "
            'the probed ones with --metadata \'{"templates": "FILE"}\', or probe with these.'
        )
    return Renderer(style, templates, table.best_templates())


def _record(
    settings: TaskSettings,
    dataset: Dataset,
    table: MasteryTable,
    renderer: Renderer,
    n_tested: int,
    n_selected: int,
) -> dict[str, Any]:
    chosen = Counter(best.how for best in renderer.best.values())
    return {
        "style": renderer.style,
        "split": "listed" if settings.facts else settings.split,
        "data": dataset.name,
        "relations": list(settings.relations) or "all",
        "facts": n_tested,
        "facts_not_probed": n_selected - n_tested,
        "mastery_base": table.meta.base,
        "mastery_revision": table.meta.revision,
        "mastery_fingerprint": table.meta.fingerprint,
        "mastery_templates": table.meta.templates_digest,
        "samples_per_fact": table.meta.n_samples,
        "best_templates": dict(sorted(chosen.items())) or None,
    }


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
