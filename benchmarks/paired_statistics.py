"""The comparison of two fine-tunes with their base on 21,168 facts: at most 10 CPU-seconds.

    python benchmarks/paired_statistics.py [--data ARCHIVE] [--draws 10000] [--plain-draws 20]
    python benchmarks/paired_statistics.py --null-row [--replicates 100]

The first measures the CPU time of `compare_runs` for the test facts of EntityQuestions with drawn
verdicts: three pairs, both domains, every stratum, cluster bootstrap by subject and by relation,
sign flips, McNemar, Holm. Imports are counted. Beside it the plain bootstrap by subject alone: for
each draw subjects are drawn one by one, their facts are looked up, and the means of the strata are
taken; timed on few draws and scaled up. Both are run in one process, one after the other.

The second counts in how many of the replicates the null row's interval covers zero, and that of
naive scoring, for simulated bases of several sizes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "entity_questions" / "dataset.zip"


def test_facts(data: Path) -> tuple[list[str], list[str], list[str], list[str]]:
    from sftknow_eval.mastery.dataset import open_dataset

    facts = open_dataset(data).probe_facts(splits=("test",))
    columns = [(fact.id, fact.relation, fact.domain, fact.subject) for fact in facts]
    ids, relations, domains, subjects = (list(column) for column in zip(*columns, strict=True))
    return ids, relations, domains, subjects


def run_of(facts: tuple[list[str], ...], strata: np.ndarray, right: np.ndarray) -> list:
    from sftknow_eval.evaluation.results import Outcome

    return [
        Outcome(
            *(fact_id, relation, domain, int(stratum), "", ""),
            {"alias_acc": bool(verdict), "alias_word_acc": None, "exact_match": None},
            float("nan"),
            subject,
        )
        for fact_id, relation, domain, subject, stratum, verdict in zip(
            *facts, strata, right, strict=True
        )
    ]


def plain_seconds_a_draw(
    facts: tuple[list[str], ...], strata: np.ndarray, base: np.ndarray, run: np.ndarray, draws: int
) -> float:
    rng = np.random.default_rng(0)
    by_subject: dict[str, dict[str, list[int]]] = {}
    for number, (domain, subject) in enumerate(zip(facts[2], facts[3], strict=True)):
        by_subject.setdefault(domain, {}).setdefault(subject, []).append(number)
    start = time.process_time()
    for _ in range(draws):
        for subjects in by_subject.values():
            names = list(subjects)
            drawn = [subjects[names[i]] for i in rng.integers(0, len(names), len(names))]
            rows = np.array([number for numbers in drawn for number in numbers])
            difference = run[rows].astype(float) - base[rows]
            np.mean([difference[strata[rows] == stratum].mean() for stratum in range(5)])
    return (time.process_time() - start) / draws


def comparison(data: Path, draws: int, plain_draws: int) -> dict[str, object]:
    facts = test_facts(data)
    rng = np.random.default_rng(0)
    n = len(facts[0])
    strata = rng.integers(0, 5, n)
    chance = strata / 4 * 0.9 + 0.02
    base, sft, lora = (rng.random(n) < chance * share for share in (1.0, 0.85, 0.9))
    runs = {"sft": run_of(facts, strata, sft), "lora": run_of(facts, strata, lora)}
    asked = run_of(facts, strata, base)
    start = time.process_time()
    from sftknow_eval.evaluation.statistics import compare_runs

    found = compare_runs(asked, runs, reference="sft", draws=draws)
    seconds = time.process_time() - start
    plain = plain_seconds_a_draw(facts, strata, base, sft, plain_draws) * draws
    return {
        "facts": n,
        "subjects": found.record["clusters"]["subject"],
        "draws": draws,
        "pairs": len(found.pairs),
        "cpu_seconds": round(seconds, 2),
        "plain_bootstrap_of_one_pair_cpu_seconds": round(plain, 1),
        "plain_over_ours_a_pair": round(plain / (seconds / len(found.pairs)), 1),
    }


def null_rows(replicates: int) -> list[dict[str, object]]:
    from sftknow_eval.evaluation.null_simulation import SimulatedBase, null_coverage

    rows = []
    for base in (SimulatedBase(), SimulatedBase(facts=300), SimulatedBase(samples=4)):
        found = null_coverage(base, replicates)
        rows.append(
            {
                "facts": base.facts,
                "samples": base.samples,
                "replicates": found.replicates,
                "null_row_covers_zero": found.null,
                "naive_covers_zero": found.naive,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--plain-draws", type=int, default=20)
    parser.add_argument("--null-row", action="store_true")
    parser.add_argument("--replicates", type=int, default=100)
    options = parser.parse_args()
    if options.null_row:
        print(json.dumps(null_rows(options.replicates), indent=2))
    else:
        print(json.dumps(comparison(options.data, options.draws, options.plain_draws), indent=2))


if __name__ == "__main__":
    main()
