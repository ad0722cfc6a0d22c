"""What a probe is asked to do, the facts it selects, and the refusal of a different one."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import Fact, Split
from sftknow_eval.mastery.sampling import SEED_STRIDE

if TYPE_CHECKING:
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.templates import Templates

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Everything that determines a probe's result, apart from facts and templates.

    Attributes:
        base: the model as the user named it, and the `revision` asked for.
        fingerprint: of the base's weights.
        tokenizer: digest of its tokenizer files.
        n_samples: samples per (fact, template).
        seed: of the samples, and of the selection where `limit` is given.
        relations: relation ids, or None for all.
        limit: number of facts in all, or None for all.
        answer_stop: a completion may end once an alias has appeared.
        keep_completions: store every text (and never stop early).
        chunk_facts: facts per shard, the unit of a restart.
        engine_args: arguments passed to the engine.
        versions: of the packages that compute.

    Raises:
        SettingsError: values out of range or against each other; all are listed.

    Source: section 3.1, appendix F.1 (the defaults).
    """

    base: str
    fingerprint: str
    revision: str | None = None
    tokenizer: str = ""
    backend: str = "hf"
    n_samples: int = 10
    temperature: float = 0.7
    max_tokens: int = 32
    seed: int = 0
    splits: tuple[Split, ...] = SPLITS
    relations: tuple[str, ...] | None = None
    limit: int | None = None
    answer_stop: bool = False
    keep_completions: bool = False
    chunk_facts: int = 256
    engine_args: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value}; it must be at least 1"
            for name, value in (
                ("limit", 1 if self.limit is None else self.limit),
                ("n-samples", self.n_samples),
                ("max-new-tokens", self.max_tokens),
                ("chunk-facts", self.chunk_facts),
            )
            if value < 1
        ]
        if self.n_samples > SEED_STRIDE:
            faults.append(f"n-samples is {self.n_samples}; at most {SEED_STRIDE} are possible")
        if not 0 < self.temperature < math.inf:
            faults.append(
                f"temperature is {self.temperature}; it must be a number above 0, since mastery is "
                "counted over samples"
            )
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed is {self.seed}; it must be from 0 to 2**32 - 1")
        wrong = [split for split in self.splits if split not in SPLITS]
        if wrong or not self.splits:
            faults.append(f"split is '{','.join(wrong)}'; known are {', '.join(SPLITS)}")
        if self.keep_completions and self.answer_stop:
            faults.append(
                "keep-completions stores whole texts, answer-stop cuts them: give one of the two"
            )
        if faults:
            raise SettingsError("; ".join(faults) + ".")
        # The order in which the user wrote them makes no other probe.
        object.__setattr__(self, "splits", tuple(s for s in SPLITS if s in self.splits))
        if self.relations is not None:
            ordered = sorted(set(self.relations), key=lambda name: (len(name), name))
            object.__setattr__(self, "relations", tuple(ordered))

    def record(
        self, facts: Sequence[Fact], dataset: Dataset, templates: Templates
    ) -> dict[str, Any]:
        """Return what stands in `probe.json`: these settings, the facts and the templates."""
        settings = dataclasses.asdict(self)
        return settings | {
            "splits": list(self.splits),
            "relations": None if self.relations is None else list(self.relations),
            "data": dataset.name,
            "facts": len(facts),
            "facts_digest": facts_digest(facts),
            "templates": templates.count,
            "templates_digest": templates.digest,
        }


def facts_digest(facts: Sequence[Fact]) -> str:
    """Return the SHA-256 (hex) over the digests of facts, in their order."""
    return hashlib.sha256(b"".join(fact.digest() for fact in facts)).hexdigest()


def select_facts(dataset: Dataset, settings: ProbeSettings) -> list[Fact]:
    """Return the facts that a probe is about, in canonical order.

    Raises:
        SettingsError: an unknown relation (the nearest valid ones are named), or no fact.
    """
    if settings.relations is not None:
        check_relations(settings.relations, list(dataset.relations))
    facts = dataset.probe_facts(splits=settings.splits, relations=settings.relations)
    if not facts:
        raise SettingsError(
            f"No fact of '{dataset.name}' is in split {','.join(settings.splits)} and relation "
            f"{','.join(settings.relations or ('(all)',))}. Out-of-domain relations are used in "
            "the test split only; 'sftknow facts' shows what there is."
        )
    return facts if settings.limit is None else even_sample(facts, settings.limit, settings.seed)


def even_sample(facts: Sequence[Fact], limit: int, seed: int) -> list[Fact]:
    """Return `limit` facts, spread evenly over (split, relation), in their given order.

    Within each group the facts are ranked by a hash of seed and id; all first-ranked facts
    are taken before any second-ranked one, so that a smaller limit gives a subset.
    """
    groups: defaultdict[tuple[str, str], list[tuple[bytes, int]]] = defaultdict(list)
    for position, fact in enumerate(facts):
        key = hashlib.sha256(f"{seed}|limit|{fact.id}".encode()).digest()
        groups[fact.split, fact.relation].append((key, position))
    ranked = [
        (rank, key, position)
        for members in groups.values()
        for rank, (key, position) in enumerate(sorted(members))
    ]
    return [facts[position] for position in sorted(p for _, _, p in sorted(ranked)[:limit])]


def check_relations(asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse relations that the data does not have, naming the nearest that it has.

    Raises:
        SettingsError: as said.
    """
    unknown = [relation for relation in asked if relation not in known]
    if unknown:
        near = [
            f"'{name}' (nearest: {', '.join(difflib.get_close_matches(name, known, 3, 0.4))})"
            if difflib.get_close_matches(name, known, 3, 0.4)
            else f"'{name}'"
            for name in unknown
        ]
        raise SettingsError(f"Unknown relation {', '.join(near)}. The data has {', '.join(known)}.")


def differences(there: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line `name: there X, now Y` for every setting that differs."""
    lines = []
    for name in sorted(there.keys() | now.keys()):
        left, right = there.get(name, "(absent)"), now.get(name, "(absent)")
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{prefix}{name}.")
        elif left != right:
            lines.append(f"{prefix}{name}: there {left}, now {right}")
    return lines
