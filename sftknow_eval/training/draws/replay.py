"""Facts of a stratum, with facts mixed in that the base masters, so that it goes on saying them.

Replay of what was known is the oldest remedy for forgetting (Robins, Connection Science 7,
1995). None of the replayed facts is asked in a test: all are train facts.
"""

from __future__ import annotations

from sftknow_eval.errors import SettingsError, TooFewFacts
from sftknow_eval.training.draw import Ask, Drawn, Pool, draw_facts


def draw(pool: Pool, ask: Ask, *, share: float = 0.2, replayed_stratum: int = 4) -> Drawn:
    """Draw `n` facts of a stratum, and mastered ones beside them.

    Args:
        pool: the candidates.
        ask: stratum, number and seed; the replayed facts come on top of the number.
        share: of the replayed facts among all that are trained on, above 0 and below 1.
        replayed_stratum: where they come from.

    Raises:
        SettingsError: an impossible share.
        TooFewFacts: there are not enough of either kind.
    """
    if not 0 < share < 1:
        raise SettingsError(f"The share of replayed facts is {share}, but has to be in (0, 1).")
    facts = draw_facts(pool.facts, pool.strata, stratum=ask.stratum, n=ask.n, seed=ask.seed)
    taken = {fact.id for fact in facts}
    wanted = max(1, round(len(facts) * share / (1 - share)))
    left = [fact for fact in pool.facts if fact.id not in taken]
    try:
        replayed = draw_facts(left, pool.strata, stratum=replayed_stratum, n=wanted, seed=ask.seed)
    except TooFewFacts as error:
        raise TooFewFacts(f"To be replayed beside {len(facts)} facts: {error}") from error
    return Drawn({"stratum": facts, "replayed": replayed})
