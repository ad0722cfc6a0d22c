"""A simulated base whose mastery is known, to check that the null row keeps its promise.

Every replicate makes new facts, new chances of recall and new samples; nothing about the base
changes between scoring it and scoring it again. An honest 95% interval of the difference then
covers zero in about 95 of 100 replicates.

Suffixes: F facts, T templates, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftknow_eval.evaluation.null_row import NullCell, null_row_of
from sftknow_eval.mastery.table import N_STRATA

CELLS = (*(f"stratum {s}" for s in range(N_STRATA)), "mean")

# On the logit scale: subjects differ much, facts of one subject less, templates a little. A fifth
# of the facts the base has never read.
_SUBJECTS_SD, _FACTS_SD, _TEMPLATES_SD = 2.5, 1.0, 0.7
_UNREAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBase:
    """How many facts a simulated base is asked, and how often.

    Attributes:
        facts: in all; about three facts in two subjects.
        templates, samples: as in a probe.
    """

    facts: int = 1000
    templates: int = 21
    samples: int = 10


@dataclass(frozen=True, slots=True)
class Coverage:
    """In how many replicates the 95% interval of a difference covered zero.

    Attributes:
        replicates: how many there were.
        null: by cell (`CELLS`), with strata and scores from different samples.
        naive: by cell, with strata and the base's score from the same samples.
    """

    replicates: int
    null: dict[str, int]
    naive: dict[str, int]


def null_coverage(base: SimulatedBase, replicates: int = 100, seed: int = 0) -> Coverage:
    """Return how often the null row covers zero, and how often naive scoring does.

    A stratum that came out empty counts as covered.
    """
    null, naive = dict.fromkeys(CELLS, 0), dict.fromkeys(CELLS, 0)
    for replicate in range(replicates):
        rng = np.random.default_rng([seed, replicate])
        subject_F = _subjects(base.facts, rng)
        verdicts = simulated_verdicts(base, subject_F, rng)
        row = null_row_of(verdicts, np.full(base.facts, "id"), subject_F, seed=replicate)
        cells: tuple[NullCell, ...] = (*row.domains["id"].strata, row.domains["id"].mean)
        for name, cell in zip(CELLS, cells, strict=True):
            null[name] += cell.difference.covers_zero
            naive[name] += cell.naive.covers_zero
    return Coverage(replicates, null, naive)


def simulated_verdicts(
    base: SimulatedBase, subject_F: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return bool (F, T, S): verdicts of a base with a chance of recall for each fact and template.

    Args:
        base: the sizes.
        subject_F: number of each fact's subject.
        rng: the source of random numbers.
    """
    of_subjects = rng.normal(0, _SUBJECTS_SD, subject_F.max() + 1)[subject_F]
    of_facts = rng.normal(-0.5, _FACTS_SD, base.facts)
    logits_FT = (of_subjects + of_facts)[:, None] + rng.normal(
        0, _TEMPLATES_SD, (base.facts, base.templates)
    )
    chances_FT = 1 / (1 + np.exp(-logits_FT))
    chances_FT[rng.random(base.facts) < _UNREAD] = 0.002
    verdicts: np.ndarray = (
        rng.random((base.facts, base.templates, base.samples)) < chances_FT[:, :, None]
    )
    return verdicts


def _subjects(n_facts: int, rng: np.random.Generator) -> np.ndarray:
    codes = rng.integers(0, max(2, 2 * n_facts // 3), n_facts)
    subjects: np.ndarray = np.unique(codes, return_inverse=True)[1]
    return subjects
