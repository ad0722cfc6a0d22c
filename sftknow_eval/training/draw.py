"""Which facts a fine-tune is trained on: N of one stratum, topics balanced, by a seed.

A strategy names the way in which its facts are chosen: a file in `draws/` with a function
`draw(pool, ask, *, option=...)`, or such a function elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from sftknow_eval.config_faults import nearest
from sftknow_eval.errors import SettingsError, TooFewFacts
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable

All = Literal["all"]


class Pool:
    """The facts that may be trained on, and what is known of them.

    Attributes:
        facts: the in-domain train facts; out-of-domain relations are never trained on.
        strata: stratum by fact id, of those that the mastery table holds.
    """

    def __init__(self, dataset: Dataset, table: MasteryTable) -> None:
        self.facts: Sequence[Fact] = dataset.facts("train", domain="id")
        self.strata: Mapping[str, int] = table.strata_of(self.facts)
        self._dataset = dataset

    @functools.cached_property
    def tested_subjects(self) -> frozenset[str]:
        """The subjects of all dev and test facts, of any relation."""
        tested = self._dataset.probe_facts(splits=("dev", "test"))
        return frozenset(fact.subject for fact in tested)


@dataclass(frozen=True, slots=True)
class Ask:
    """Which and how many facts are asked for, and the seed of the draw."""

    stratum: int | All
    n: int | All
    seed: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """The facts to train on, by the part that they play."""

    parts: Mapping[str, Sequence[Fact]]

    @property
    def facts(self) -> list[Fact]:
        """Return all facts; training orders them anew."""
        return [fact for part in self.parts.values() for fact in part]


class Draw(Protocol):
    """Chooses facts; keyword arguments are the options that a strategy may set."""

    def __call__(self, pool: Pool, ask: Ask, **options: Any) -> Drawn:
        """Return the chosen facts."""


def load_draw(name: str) -> Draw:
    """Return the draw of a file in `draws/`, or of `package.module:function`.

    Raises:
        SettingsError: there is none of that name.
    """
    module, colon, function = name.partition(":")
    if not colon:
        folder = Path(__file__).parent / "draws"
        known = sorted(path.stem for path in folder.glob("[a-z]*.py"))
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean '{near}'?" if near else ""
            raise SettingsError(f"there is no draw '{name}'{hint} (known: {', '.join(known)})")
        module, function = f"sftknow_eval.training.draws.{name}", "draw"
    try:
        return cast(Draw, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"the draw '{name}' cannot be imported ({error}); it is named as "
            "package.module:function, and its module has to be on PYTHONPATH"
        ) from error


def draw_facts(
    facts: Iterable[Fact],
    strata: Mapping[str, int],
    *,
    stratum: int | All = "all",
    n: int | All = "all",
    seed: int = 0,
) -> list[Fact]:
    """Draw `n` facts of a stratum, as evenly over the relations as their sizes allow.

    Relations take turns, and one that has no facts left is passed over, so that the others
    fill its place. The order within a relation, and that of the relations, comes from hashes
    of the seed: the draw depends on the set of facts and the seed alone, and a smaller draw
    is the beginning of a larger one of the same seed.

    Args:
        facts: the candidates; facts without a stratum are no candidates.
        strata: stratum by fact id.
        stratum: 0 to 4, or `all`.
        n: how many, or `all` there are.
        seed: of the draw.

    Raises:
        TooFewFacts: there are fewer facts than asked for, or none.

    Source: section 3.3, appendix A ("topics balanced").
    """
    known = [fact for fact in facts if fact.id in strata]
    eligible = [fact for fact in known if stratum in ("all", strata[fact.id])]
    wanted = len(eligible) if n == "all" else n
    if wanted > len(eligible) or not eligible:
        raise TooFewFacts(_too_few(stratum, n, len(eligible), [strata[f.id] for f in known]))
    topics: dict[str, list[Fact]] = defaultdict(list)
    for fact in eligible:
        topics[fact.relation].append(fact)
    queues = [
        sorted(topics[relation], key=lambda fact: _rank(seed, fact.id), reverse=True)
        for relation in sorted(topics, key=lambda relation: _rank(seed, relation))
    ]
    drawn: list[Fact] = []
    while len(drawn) < wanted:
        turn = [queue.pop() for queue in queues if queue]
        drawn += turn[: wanted - len(drawn)]
    return drawn


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"draw|{seed}|{name}".encode()).digest()


def _too_few(stratum: int | All, n: int | All, there_are: int, strata: list[int]) -> str:
    counts = Counter(strata)
    listed = ", ".join(f"{counts[i]} of stratum {i}" for i in range(5))
    where = "all strata" if stratum == "all" else f"stratum {stratum}"
    asked = "all its facts were" if n == "all" else f"{n} facts were"
    return (
        f"{asked[0].upper()}{asked[1:]} asked for, but there are {there_are} in-domain train "
        f"facts of {where} in the mastery table (it holds {listed}). Ask for fewer with --n, "
        "choose another --stratum, or probe more train facts."
    )
