"""The demo's own parts: which steps run, and what the summary says about given numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.demo import Journal, Step, demo_steps, next_commands, summary
from sftknow_eval.record import TrainingRecord, read_record

RECORD = TrainingRecord(
    base="base",
    revision=None,
    base_fingerprint="ab",
    mastery_digest="cd",
    data="world",
    data_source="world",
    facts_digest="ef",
    stratum=0,
    n=240,
    seed=0,
    fact_ids=(),
    hyperparameters={},
    saved_dtype="float32",
    versions={},
    steps=30,
    losses=(),
)


class Runs:
    """Stands in for subprocess.run: notes the words and makes each step's result."""

    def __init__(self, steps: list[Step]) -> None:
        self.results = {step.command.split()[1]: step.result for step in steps}
        self.verbs: list[str] = []
        self.fail = ""

    def __call__(self, command: tuple[str, ...], **_: Any) -> None:
        verb = command[3]
        self.verbs.append(verb)
        if verb == self.fail:
            raise subprocess.CalledProcessError(2, command)
        self.results[verb].parent.mkdir(parents=True, exist_ok=True)
        self.results[verb].touch()


@pytest.fixture
def steps(tmp_path: Path) -> list[Step]:
    return demo_steps(tmp_path / "an out")


@pytest.fixture
def runs(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs(steps)
    monkeypatch.setattr(subprocess, "run", stand_in)
    return stand_in


def run_all(out: Path, steps: list[Step]) -> None:
    journal = Journal(out, steps)
    for number in range(len(steps)):
        if not journal.is_finished(number):
            journal.run(number)


def test_finished_steps_are_not_run_again(tmp_path: Path, steps: list[Step], runs: Runs) -> None:
    run_all(tmp_path / "an out", steps)
    assert runs.verbs == ["world", "probe", "train", "eval", "sweep", "drift"]
    run_all(tmp_path / "an out", steps)
    assert len(runs.verbs) == 6


def test_a_failed_step_is_run_again_with_all_after_it(
    tmp_path: Path, steps: list[Step], runs: Runs
) -> None:
    runs.fail = "train"
    with pytest.raises(subprocess.CalledProcessError):
        run_all(tmp_path / "an out", steps)
    runs.fail = ""
    run_all(tmp_path / "an out", steps)
    assert runs.verbs == ["world", "probe", "train", "train", "eval", "sweep", "drift"]


def test_a_lost_result_or_another_seed_is_made_anew(
    tmp_path: Path, steps: list[Step], runs: Runs
) -> None:
    run_all(tmp_path / "an out", steps)
    steps[1].result.unlink()
    run_all(tmp_path / "an out", steps)
    assert runs.verbs[6:] == ["probe", "train", "eval", "sweep", "drift"]
    run_all(tmp_path / "an out", demo_steps(tmp_path / "an out", seed=1))
    assert runs.verbs[11:] == ["world", "probe", "train", "eval", "sweep", "drift"]


def test_commands_are_what_a_shell_would_take(tmp_path: Path, steps: list[Step]) -> None:
    import shlex

    assert str(tmp_path / "an out" / "world") in shlex.split(steps[0].command)
    assert all(step.command.startswith("sftknow ") for step in steps)
    typed = [command for _, command in next_commands(Path("demo-out"), 240)]
    literal = "lm_eval --model hf --model_args pretrained=demo-out/finetuned --tasks sftknow_cbqa"
    assert any(command.startswith(literal) for command in typed)


def results(id_strata: list[tuple[int, int]], ood_strata: list[tuple[int, int]]) -> dict[str, Any]:
    """Results in which stratum i has (facts that are right after, facts); the base knew half."""
    from sftknow_eval.evaluation.compare import Transitions
    from sftknow_eval.evaluation.results import Share, mean_of_strata

    scores: dict[str, Any] = {"base": {}, "finetuned": {}}
    changed: dict[str, Any] = {}
    for domain, strata in (("id", id_strata), ("ood", ood_strata)):
        entries = [
            Transitions(
                kept=min(right, n // 2),
                lost=n // 2 - min(right, n // 2),
                gained=right - min(right, n // 2),
                unknown=n - n // 2 - (right - min(right, n // 2)),
            )
            for right, n in strata
        ]
        for model in scores:
            shares = [Share(n // 2 if model == "base" else right, n) for right, n in strata]
            scores[model][domain] = {
                "alias_acc": {
                    "strata": [share.as_json() for share in shares],
                    "mean": {"value": mean_of_strata(shares).value},
                }
            }
        total = [sum(getattr(e, k) for e in entries) for k in ("kept", "lost", "gained", "unknown")]
        changed[domain] = {
            "strata": [entry.as_json() for entry in entries],
            "all": Transitions(*total).as_json(),
        }
    return {"scores": scores, "transitions": changed}


def swept(*means: tuple[float, float]) -> dict[str, Any]:
    """A sweep with (ratio, mean accuracy) in both domains, each 10 points up and down."""
    return {
        "points": [
            {
                "ratio": ratio,
                "same_as": None,
                "scores": {
                    domain: {"alias_acc": {"mean": {"value": v, "low": v - 0.1, "high": v + 0.1}}}
                    for domain in ("id", "ood")
                },
            }
            for ratio, v in means
        ]
        + [{"ratio": 80.0, "same_as": 60.0}]
    }


SWEPT = swept((0.0, 0.4), (20.0, 0.45), (60.0, 0.1))
RISING = [(0, 100), (20, 100), (40, 100), (60, 100), (90, 100)]


def test_the_summary_counts_what_was_kept_lost_and_gained() -> None:
    text = "\n".join(summary(results(RISING, RISING), RECORD, SWEPT))
    # By hand: the base knew 50 of each 100. Kept 0+20+40+50+50 = 160 of 250, lost 90 (36%),
    # gained 0+0+0+10+40 = 50. Means: 50% before, (0+20+40+60+90)/5 = 42% after.
    assert "In-domain: of 500 test facts the base knew 250." in text
    assert "kept 160 of them and lost 90 (36%, 95% interval 30% to 42%)" in text
    assert "100% in stratum 0, 60% in stratum 1, 20% in stratum 2, 0% in stratum 3" in text
    assert "gained 50 that" in text
    assert "from 50% to 42%" in text
    assert "240 facts of stratum 0" in text
    assert "no evidence about large models" in text


@pytest.mark.parametrize(
    ("strata", "verdict"),
    [
        (RISING, "In-domain, so it is here."),
        ([*RISING[:4], (60, 100)], "In-domain, so it is here."),
        ([(80, 100), *RISING[1:]], "In-domain, it is not so here (stratum 1 below 0)."),
        (
            [(2, 10), (1, 10), *RISING[2:]],
            "(stratum 1 below 0), though by no more than chance may do",
        ),
        ([(0, 0), (0, 0), (0, 0), (0, 0), (9, 10)], "too few strata hold facts here to tell"),
    ],
)
def test_the_summary_says_whether_accuracy_rises_with_mastery(
    strata: list[tuple[int, int]], verdict: str
) -> None:
    assert verdict in "\n".join(summary(results(strata, RISING), RECORD, SWEPT))


def test_a_domain_without_known_facts_is_said_so() -> None:
    none = [(0, 1)] * 5
    assert "Out-of-domain: the base knew none of 5 test facts." in summary(
        results(RISING, none), RECORD, SWEPT
    )


def test_the_summary_says_what_restoring_brought_back() -> None:
    text = "\n".join(summary(results(RISING, RISING), RECORD, SWEPT))
    assert (
        "In-domain, accuracy here is 40.0% with nothing restored, 45.0% at best (at 20%), by no "
        "more than chance may do with so few facts, and 10.0% at 60%."
    ) in text
    clear = swept((0.0, 0.1), (20.0, 0.4))
    assert "40.0% at best (at 20%), and" in "\n".join(
        summary(results(RISING, RISING), RECORD, clear)
    )


def test_a_quick_look_runs_every_step_and_then_reuses_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sftknow_eval", "demo", "--size", "tiny", "--out", "look"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    for line in ("$ sftknow world --out look/world", "What is seen", "80 test facts", "lm_eval "):
        assert line in first.stdout
    for plot in ("restoration/curve.svg", "drift/concentration.svg", "drift/layers.svg"):
        assert (tmp_path / "look" / plot).is_file()
    record = read_record(tmp_path / "look" / "finetuned")
    assert record is not None
    assert (record.stratum, record.n) == (0, 24)
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.stdout.count("Finished before: reused.") == 4
    # The same words from the same results.
    assert second.stdout.partition("What is seen")[2] == first.stdout.partition("What is seen")[2]
