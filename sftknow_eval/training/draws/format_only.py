"""Facts that teach the prompt's form and nothing else, as far as that can be had.

What a base loses by fine-tuning cannot be told from what it cannot say in an unknown form.
This draw gives the comparison: a fine-tune that saw the form, on facts that it did not have to
learn. It takes train facts that the base masters (so that their answers are no news), and whose
subjects stand in no dev or test question of any relation (so that nothing about a tested subject
is rehearsed).
"""

from __future__ import annotations

from sftknow_eval.training.draw import Ask, Drawn, Pool, draw_facts


def draw(pool: Pool, ask: Ask) -> Drawn:
    """Draw `n` facts of a stratum about subjects that are tested nowhere.

    Raises:
        TooFewFacts: there are not enough of them.
    """
    apart = [fact for fact in pool.facts if fact.subject not in pool.tested_subjects]
    return Drawn(
        {"form": draw_facts(apart, pool.strata, stratum=ask.stratum, n=ask.n, seed=ask.seed)}
    )
