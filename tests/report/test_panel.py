"""Panels of facts; expected shares are counted by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.results import Outcome, Share
from sftknow_eval.mastery.facts import Domain, Fact
from sftknow_eval.report.panel import Panel, draw_panel
from sftknow_eval.report.shares import lost_share

SIZES = {("id", 0): 50, ("id", 4): 5, ("ood", 1): 20}


def _facts() -> tuple[list[Fact], dict[str, int]]:
    facts, strata = [], {}
    for (domain, stratum), size in SIZES.items():
        for i in range(size):
            name = f"P1-test-{domain}{stratum}{i:03d}"
            known: Domain = "id" if domain == "id" else "ood"
            facts.append(Fact(name, "P1", known, "test", f"s{i}", f"q {name}", "a", ("a",)))
            strata[name] = stratum
    return facts, strata


def test_small_groups_are_taken_whole_and_the_rest_is_shared_out() -> None:
    facts, strata = _facts()
    panel = draw_panel(facts, strata, 31)
    # 5 of the smallest; the other 26 are shared by two groups.
    assert panel.taken == {("id", 0): 13, ("id", 4): 5, ("ood", 1): 13}
    assert Counter(strata[name] for name in panel.ids) == {0: 13, 4: 5, 1: 13}
    assert panel.total == 75
    assert panel.weight(("id", 0)) == 50 / 13


def test_a_panel_is_the_same_each_time_and_holds_smaller_ones() -> None:
    facts, strata = _facts()
    large = draw_panel(facts, strata, 40)
    assert draw_panel(list(reversed(facts)), strata, 40) == large
    assert set(draw_panel(facts, strata, 20).ids) < set(large.ids)


def test_a_panel_larger_than_the_split_is_the_split() -> None:
    facts, strata = _facts()
    assert len(draw_panel(facts, strata, 1000).ids) == 75


def test_a_panel_of_a_handful_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 10"):
        draw_panel(*_facts(), 3)


def _outcome(name: str, stratum: int, right: bool) -> Outcome:
    correct = {"alias_acc": right, "alias_word_acc": right, "exact_match": right}
    return Outcome(name, "P1", "id", stratum, "", "", correct, 0.0)


def test_the_share_lost_of_a_whole_split_is_wilsons() -> None:
    base = {str(i): _outcome(str(i), 4, i < 40) for i in range(60)}
    tuned = [_outcome(str(i), 4, i >= 10) for i in range(60)]
    found = lost_share(base, tuned)
    expected = Share(10, 40).interval()
    assert expected is not None
    assert (found.known, found.lost, found.value) == (40, 10, 0.25)
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_panel_counts_each_fact_for_those_it_stands_for() -> None:
    # Stratum 0: 2 known, 1 lost, each for 9 facts. Stratum 4: 2 known, 0 lost, each for 1.
    base = {name: _outcome(name, int(name[0]), True) for name in ("0a", "0b", "4a", "4b")}
    tuned = [_outcome(name, int(name[0]), name != "0a") for name in base]
    sizes, taken = {("id", 0): 18, ("id", 4): 2}, {("id", 0): 2, ("id", 4): 2}
    found = lost_share(base, tuned, Panel(tuple(base), sizes, taken))
    assert found.value == pytest.approx(9 / 20)
    # 20 squared over 2 * 81 + 2 * 1: fewer facts in effect than the four asked.
    plain = lost_share(base, tuned)
    assert found.low is not None
    assert plain.low is not None
    assert found.high is not None
    assert found.high - found.low > 0.7


def test_nothing_known_is_no_share() -> None:
    base = {"a": _outcome("a", 0, False)}
    found = lost_share(base, [_outcome("a", 0, True)])
    assert (found.known, found.value, found.low) == (0, None, None)
