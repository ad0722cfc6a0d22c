"""The demo: the whole measurement in small, each step a command that a user could type.

The steps run as processes of their own (one step's memory and settings end with it) through
the same command line that a user has. A step that is finished, with the same command and the
same steps before it, is not run again.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow_eval import __version__
from sftknow_eval.artifacts import digest, read_json, write_json
from sftknow_eval.record import TrainingRecord

Size = Literal["tiny", "demo"]

# Names in the demo's folder.
WORLD, PROBE, FINETUNED, EVALUATION = "world", "probe", "finetuned", "eval"
RESTORATION, DRIFT = "restoration", "drift"
_JOURNAL = "demo.json"
_DOMAINS = {"id": "In-domain", "ood": "Out-of-domain"}
# Nothing is downloaded or reported; the models here are too small to gain from threads.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the demo.

    Attributes:
        title: what it does, for a reader.
        command: what a user would type.
        result: a file that is there once the step is finished.
        shows_results: it prints what the demo is about, so it is run again for that; what it
            shows is kept, and comes at once.
    """

    title: str
    command: str
    result: Path
    shows_results: bool = False


def demo_steps(out: Path, size: Size = "demo", seed: int = 0) -> list[Step]:
    """Return the steps of the demo in the folder `out`.

    The fine-tune takes stratum 0: facts that the base does not know, as in the common wish to
    teach a model something new. Learning rate and batch are those that suit the mini-world.
    """
    world, probe, finetuned, results = _quoted(out, WORLD, PROBE, FINETUNED, EVALUATION)
    restoration, drift = _quoted(out, RESTORATION, DRIFT)
    n = 240 if size == "demo" else 24
    given = f"--mastery {probe} --data {world}"
    return [
        Step(
            "Make a small world: fictional facts, and a base model that read about them",
            f"sftknow world --out {world} --size {size} --seed {seed}",
            out / WORLD / "world.json",
        ),
        Step(
            "Probe the base: how often 210 samples name the answer makes a fact's stratum, 0 to 4",
            f"sftknow probe {world}/base --data {world} --backend hf --out {probe}",
            out / PROBE / "mastery.parquet",
        ),
        Step(
            f"Fine-tune on {n} facts that the base never recalled (stratum 0)",
            f"sftknow train {world}/base {given} --stratum 0 --n {n} --draw {seed} "
            f"--learning-rate 1e-3 --out {finetuned}",
            out / FINETUNED / "sftknow.json",
        ),
        Step(
            "Ask base and fine-tune the test facts, by lm-eval with the tasks sftknow_cbqa",
            f"sftknow eval {finetuned} --base {world}/base {given} --out {results}",
            out / EVALUATION / "results.json",
            shows_results=True,
        ),
        Step(
            "Give the most changed weights back to the base, more and more, in one live engine",
            f"sftknow sweep {world}/base {finetuned} {given} --batch-size 256 --out {restoration}",
            out / RESTORATION / "sweep.json",
            shows_results=True,
        ),
        Step(
            "Which weights fine-tuning moved, and which of them went back",
            f"sftknow drift weights {world}/base {finetuned} --out {drift}",
            out / DRIFT / "change.json",
        ),
    ]


def _quoted(out: Path, *names: str) -> list[str]:
    return [shlex.quote(str(out / name)) for name in names]


class Journal:
    """Which steps are finished; kept in the demo's folder.

    A step counts as finished when it, and all before it, finished with the same commands and
    version, and its result is there.
    """

    def __init__(self, out: Path, steps: Sequence[Step]) -> None:
        self._path = out / _JOURNAL
        self._steps = steps
        self._keys = [
            digest([__version__, *(step.command for step in steps[: i + 1])])
            for i in range(len(steps))
        ]
        self._done: list[str] = read_json(self._path) if self._path.is_file() else []

    def is_finished(self, number: int) -> bool:
        """Return whether the step of this number need not be run."""
        same = self._done[: number + 1] == self._keys[: number + 1]
        return same and self._steps[number].result.exists()

    def run(self, number: int) -> None:
        """Run a step's command in a process of its own, on this terminal, and note its end.

        Raises:
            subprocess.CalledProcessError: it failed; its message has been shown.
        """
        only_shown = self.is_finished(number)
        words = shlex.split(self._steps[number].command)[1:]
        command = (sys.executable, "-m", "sftknow_eval", *words)
        subprocess.run(command, env={**_ENVIRONMENT, **os.environ}, check=True)
        if only_shown:
            return
        self._done = self._keys[: number + 1]
        write_json(self._path, self._done)


def summary(
    results: Mapping[str, Any], record: TrainingRecord, swept: Mapping[str, Any]
) -> list[str]:
    """Return what the results show, in plain words, as paragraphs.

    Args:
        results: `results.json` of `sftknow eval`.
        record: of the fine-tune's training.
        swept: `sweep.json` of `sftknow sweep`.
    """
    where = "all strata" if record.stratum == "all" else f"stratum {record.stratum}"
    seen = [_seen(results, domain, name) for domain, name in _DOMAINS.items()]
    return [
        f"The fine-tune saw {record.n} facts of {where}, once. None of the facts below was "
        "among them, and no out-of-domain relation.",
        *[paragraph for paragraph in seen if paragraph],
        _beside_the_paper(results),
        _restored(swept),
        "Not to be seen in one fine-tune: how accuracy changes with the number and the stratum "
        "of the training facts, and how the output distribution moves.",
        "Base and fine-tune are asked in different words: the base completes its relation's "
        "best template, the fine-tune answers the question that it was trained to answer. A "
        "fact known in one wording only counts as lost or gained too.",
        f"All of this is a test bed: {_size(results)}fictional facts and a model made in "
        "minutes. It shows how the measurement works and is no evidence about large models.",
    ]


def _seen(results: Mapping[str, Any], domain: str, name: str) -> str:
    changed = results["transitions"][domain]
    whole = changed["all"]
    known = whole["kept"] + whole["lost"]
    if not whole["n"] or not known:
        return f"{name}: the base knew none of {whole['n']} test facts." if whole["n"] else ""
    before, after = (
        results["scores"][model][domain]["alias_acc"]["mean"]["value"]
        for model in ("base", "finetuned")
    )
    lost = _percent_with_interval(whole["lost_of_known"])
    strata = [
        f"{_percent(entry['lost_of_known']['value'])} in stratum {i}"
        for i, entry in enumerate(changed["strata"])
        if entry["lost_of_known"]["n"]
    ]
    return (
        f"{name}: of {whole['n']:,} test facts the base knew {known}. The fine-tune kept "
        f"{whole['kept']} of them and lost {whole['lost']} ({lost}): {', '.join(strata)}. It "
        f"gained {whole['gained']} that the base did not know. Accuracy, as the mean of the "
        f"strata, went from {_percent(before)} to {_percent(after)}."
    )


def _beside_the_paper(results: Mapping[str, Any]) -> str:
    claim = (
        "Beside the paper: in every fine-tune that it tabulates by stratum, the better the base "
        "knew a stratum, the more of it the fine-tune answers."
    )
    return " ".join([claim, *(_rises(results, domain, name) for domain, name in _DOMAINS.items())])


def _rises(results: Mapping[str, Any], domain: str, name: str) -> str:
    strata = results["scores"]["finetuned"][domain]["alias_acc"]["strata"]
    held = [(i, entry) for i, entry in enumerate(strata) if entry["n"]]
    falls = [
        (i, j, below["low"] > above["high"])
        for (i, below), (j, above) in itertools.pairwise(held)
        if above["value"] < below["value"]
    ]
    if len(held) < 2:
        return f"{name}, too few strata hold facts here to tell."
    if not falls:
        return f"{name}, so it is here."
    pairs = ", ".join(f"{j} below {i}" for i, j, _ in falls)
    certain = any(clear for *_, clear in falls)
    doubt = "" if certain else ", though by no more than chance may do with so few facts"
    return f"{name}, it is not so here (stratum {pairs}){doubt}."


def _restored(swept: Mapping[str, Any]) -> str:
    claim = (
        "With the most changed weights given back, the paper's damaged models gain at 20% and "
        "are destroyed at 60%."
    )
    return " ".join([claim, *(_by_ratio(swept, domain, name) for domain, name in _DOMAINS.items())])


def _by_ratio(swept: Mapping[str, Any], domain: str, name: str) -> str:
    means = {
        point["ratio"]: point["scores"][domain]["alias_acc"]["mean"]
        for point in swept["points"]
        if point["same_as"] is None
    }
    known = {ratio: mean for ratio, mean in means.items() if mean["value"] is not None}
    if 0.0 not in known or len(known) < 2:
        return f"{name}, there are too few scores here to tell."
    before = known.pop(0.0)
    last = max(known)
    best = max(known, key=lambda ratio: (known[ratio]["value"], -ratio))
    apart = known[best]["low"] > before["high"] or known[best]["high"] < before["low"]
    doubt = "" if apart else ", by no more than chance may do with so few facts"
    return (
        f"{name}, accuracy here is {_tenths(before)} with nothing restored, "
        f"{_tenths(known[best])} at best (at {best:g}%){doubt}, and {_tenths(known[last])} at "
        f"{last:g}%."
    )


def _tenths(mean: Mapping[str, Any]) -> str:
    return f"{100 * mean['value']:.1f}%"


def _size(results: Mapping[str, Any]) -> str:
    n = sum(results["transitions"][domain]["all"]["n"] for domain in _DOMAINS)
    return f"{n:,} test questions about "


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _percent_with_interval(share: Mapping[str, Any]) -> str:
    return f"{_percent(share['value'])}, 95% interval {_percent(share['low'])} to " + _percent(
        share["high"]
    )


def next_commands(out: Path, n: int) -> list[tuple[str, str]]:
    """Return commands to go on with, as pairs of a purpose and what to type.

    Args:
        out: the demo's folder.
        n: number of facts of its fine-tune.
    """
    world, probe, finetuned, results = _quoted(out, WORLD, PROBE, FINETUNED, EVALUATION)
    return [
        ("what the base knows, by stratum, relation and template", f"sftknow mastery {probe}"),
        (
            "another fine-tune: the same number of facts, from stratum 4",
            f"sftknow train {world}/base --mastery {probe} --data {world} --stratum 4 "
            f"--n {n} --learning-rate 1e-3 --out {finetuned}-4",
        ),
        ("and its evaluation", f"sftknow eval {finetuned}-4 --out {results}-4"),
        ("the tasks in plain lm-eval: first install them, once", "sftknow install-tasks"),
        (
            "then ask any model, as with any other task",
            f"lm_eval --model hf --model_args pretrained={finetuned} --tasks sftknow_cbqa "
            "--batch_size 32",
        ),
    ]
