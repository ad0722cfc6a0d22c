"""Facts of one stratum, or of all: the paper's divided and mixed fine-tuning.

Source: section 3.3, appendix A.
"""

from __future__ import annotations

from sftknow_eval.training.draw import Ask, Drawn, Pool, draw_facts


def draw(pool: Pool, ask: Ask) -> Drawn:
    """Draw `n` facts of a stratum, topics balanced."""
    facts = draw_facts(pool.facts, pool.strata, stratum=ask.stratum, n=ask.n, seed=ask.seed)
    return Drawn({"stratum": facts})
