"""The draw of training facts: balanced, nested, a matter of the seed alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.training.draw import draw_facts


def make_facts(**sizes: int) -> list[Fact]:
    return [
        Fact(f"{relation}-train-{row:04d}", relation, "id", "train", f"S{row}", "Q?", "A", ("A",))
        for relation, size in sizes.items()
        for row in range(size)
    ]


def in_stratum(facts: list[Fact], number: int) -> dict[str, int]:
    return {fact.id: number for fact in facts}


def test_short_topics_are_filled_from_the_others() -> None:
    facts = make_facts(P17=50, P19=50, P20=5)
    drawn = draw_facts(facts, in_stratum(facts, 2), stratum=2, n=61, seed=0)
    # 61 = 5 (all of P20) + 56 shared by two relations.
    assert Counter(fact.relation for fact in drawn) == {"P17": 28, "P19": 28, "P20": 5}
    assert len({fact.id for fact in drawn}) == 61


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_relations_differ_by_one_at_most_unless_exhausted(
    sizes: list[int], share: float, seed: int
) -> None:
    facts = make_facts(**{f"P{i}": size for i, size in enumerate(sizes)})
    n = max(1, round(share * len(facts)))
    drawn = draw_facts(facts, in_stratum(facts, 1), stratum=1, n=n, seed=seed)
    assert len({fact.id for fact in drawn}) == len(drawn) == n
    counts = Counter(fact.relation for fact in drawn)
    most = max(counts.values())
    for i, size in enumerate(sizes):
        assert counts[f"P{i}"] in (size, most, most - 1)


def test_the_draw_depends_on_the_set_of_facts_and_the_seed_alone() -> None:
    facts = make_facts(P17=30, P19=30)
    strata = in_stratum(facts, 3)
    drawn = draw_facts(facts, strata, stratum=3, n=20, seed=7)
    shuffled = random.Random(0).sample(facts, len(facts))
    backwards = dict(reversed(strata.items()))
    assert draw_facts(shuffled, backwards, stratum=3, n=20, seed=7) == drawn
    assert draw_facts(facts, strata, stratum=3, n=20, seed=8) != drawn
    assert draw_facts(facts, strata, stratum=3, n=40, seed=7)[:20] == drawn


def test_only_facts_of_the_stratum_are_drawn() -> None:
    facts = make_facts(P17=30)
    strata = {fact.id: row % 5 for row, fact in enumerate(facts[:25])}
    drawn = draw_facts(facts, strata, stratum=4, n="all")
    assert sorted(fact.id for fact in drawn) == [facts[i].id for i in range(4, 25, 5)]
    # The five facts that the table does not hold have no stratum: 'all' leaves them out.
    assert len(draw_facts(facts, strata)) == 25


def test_too_few_facts_are_an_error_that_counts_them() -> None:
    facts = make_facts(P17=10)
    strata = {fact.id: 1 if row < 7 else 2 for row, fact in enumerate(facts)}
    with pytest.raises(SettingsError, match="8 facts were asked for, but there are 7") as caught:
        draw_facts(facts, strata, stratum=1, n=8)
    assert "0 of stratum 0, 7 of stratum 1, 3 of stratum 2" in str(caught.value)
    with pytest.raises(SettingsError, match="there are 0"):
        draw_facts(facts, strata, stratum=4, n="all")
