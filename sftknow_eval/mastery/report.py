"""The numbers behind `sftknow mastery TABLE`: counts first, ratios from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sftknow_eval.mastery.table import N_STRATA, MasteryTable

# The order of the paper's Tables 1 and 8, with the dev split in its place.
GROUPS = (
    ("id", "train"),
    ("id", "dev"),
    ("id", "test"),
    ("ood", "train"),
    ("ood", "dev"),
    ("ood", "test"),
)


def summarise(table: MasteryTable) -> dict[str, Any]:
    """Return a table's record, its counts by group, by relation and by template.

    Keys:
        probe: the record (`TableMeta`).
        groups: per domain and split: facts, facts per stratum, mean R_k.
        relations: per relation the same, and its best templates.
        templates: per relation and template: correct samples of how many.

    Source: Tables 1 and 8 (the groups).
    """
    successes = table.verdicts().sum(axis=2, dtype=np.int64)
    domain, split, relation = (table.column(name) for name in ("domain", "split", "relation"))
    groups = [
        {"domain": d, "split": s, **_counts(table, (domain == d) & (split == s))}
        for d, s in GROUPS
        if ((domain == d) & (split == s)).any()
    ]
    best = table.best_templates()
    relations, templates = [], []
    for name in dict.fromkeys(relation):
        mask = relation == name
        chosen = [dataclasses.asdict(best[name, half]) for half in (0, 1)]
        relations.append(
            {
                "relation": name,
                "domain": domain[mask][0],
                **_counts(table, mask),
                "best_templates": chosen,
            }
        )
        templates.append(
            {
                "relation": name,
                "n_samples": int(mask.sum()) * table.meta.samples_per_template,
                "n_correct": successes[mask].sum(axis=0).tolist(),
            }
        )
    return {
        "probe": dataclasses.asdict(table.meta),
        "facts": len(table),
        "groups": groups,
        "relations": relations,
        "templates": templates,
    }


def _counts(table: MasteryTable, mask: np.ndarray) -> dict[str, Any]:
    n_correct, n_samples = (int(table.column(c)[mask].sum()) for c in ("n_correct", "n_samples"))
    return {
        "facts": int(mask.sum()),
        "strata": np.bincount(table.column("stratum")[mask], minlength=N_STRATA).tolist(),
        "n_correct": n_correct,
        "n_samples": n_samples,
        "mean_r": n_correct / n_samples,
    }
