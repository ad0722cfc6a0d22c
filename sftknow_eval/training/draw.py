"""Which facts a fine-tune is trained on: N of one stratum, topics balanced, by a seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import Fact

All = Literal["all"]


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
        SettingsError: there are fewer facts than asked for, or none.

    Source: section 3.3, appendix A ("topics balanced").
    """
    known = [fact for fact in facts if fact.id in strata]
    eligible = [fact for fact in known if stratum in ("all", strata[fact.id])]
    wanted = len(eligible) if n == "all" else n
    if wanted > len(eligible) or not eligible:
        raise SettingsError(_too_few(stratum, n, len(eligible), [strata[f.id] for f in known]))
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
