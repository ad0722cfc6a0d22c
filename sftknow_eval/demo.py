"""The demo: the mini-world's study, and in plain words what it shows beside the paper's findings.

`sftknow demo` is `sftknow study` with a configuration of the package. What is said about the
results is read from the study's files, agreeable or not.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SettingsError

Size = Literal["demo", "quick", "full"]

_FILES = {"demo": "demo.yaml", "quick": "demo-quick.yaml", "full": "demo-full.yaml"}
_PLAIN = "sft_divided"
_AT = 20.0


def demo_config(size: Size = "demo") -> Path:
    """Return the configuration of a demo: in a wheel in the package, else beside it.

    Raises:
        SettingsError: it is missing.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (path := folder / _FILES[size]).is_file():
            return path
    raise SettingsError(
        f"The demo's configuration {_FILES[size]} is missing beside {package}. Install "
        "sftknow-eval again."
    )


def summary(root: Path) -> list[str]:
    """Return what a study shows, as paragraphs; one of them is a list, a line an item.

    Args:
        root: the folder of a finished study.
    """
    index = read_json(root / "study.json")
    comparison = index["comparison"]
    seeds = read_json(root / comparison)["seeds"] if comparison else []
    first = index["bases"][0]["id"]
    seeds = [entry for entry in seeds if entry["base"] == first]
    plain = [entry for entry in seeds if entry["strategy"] == _PLAIN]
    found = [
        *_findings(root, index),
        *_over_n(plain),
        *_over_strata(plain),
        *_drift(root, index, first),
        *_restored(root, index, first),
        *_strategies(seeds),
    ]
    return [
        *found,
        "Base and fine-tunes are asked in different words: the base completes its relation's best "
        "template, a fine-tune answers the question that it was trained to answer. A fact known "
        "in one wording only counts as lost or gained too.",
        "All of this is a test bed: fictional facts and a model made in minutes. It shows how the "
        "measurement works and is no evidence about large models.",
    ]


def _findings(root: Path, index: Mapping[str, Any]) -> list[str]:
    """Return the report's verdict on each of the paper's findings."""
    if not index["report"]:
        return []
    report = read_json(root / Path(index["report"]).with_name("report.json"))
    lines = []
    for finding in report["findings"]:
        verdicts = Counter(effect["verdict"] for effect in finding["effects"])
        listed = ", ".join(f"{verdict} {n}" for verdict, n in sorted(verdicts.items()))
        lines.append(f"- {finding['claim']}: {listed or 'not tried'}")
    head = (
        "The paper's findings, and the number of effects in which each is shown here, is not, or "
        "cannot be told from chance:"
    )
    return ["\n".join([head, *lines])]


def _mean(entry: Mapping[str, Any], domain: str = "id") -> float:
    return float(entry["summary"]["domains"][domain]["mean"]["mean"])


def _over_n(plain: list[dict[str, Any]]) -> list[str]:
    """Compare the course of accuracy over the number of facts with finding 1."""
    strata = sorted({entry["stratum"] for entry in plain})
    lines = []
    for stratum in strata:
        course = sorted(
            ((entry["n"], entry) for entry in plain if entry["stratum"] == stratum),
            key=lambda pair: pair[0],
        )
        if len(course) > 1:
            values = ", ".join(_tenths(_mean(entry)) for _, entry in course)
            lines.append(f"stratum {stratum}: {values}")
    if not lines:
        return []
    counts = sorted({entry["n"] for entry in plain})
    return [
        "More facts. The paper: in-domain accuracy peaks at few training facts and falls with "
        f"more, most for stratum 0. Here, the in-domain mean of strata for "
        f"{_listed(map(str, counts))} facts; {'; '.join(lines)}."
    ]


def _over_strata(plain: list[dict[str, Any]]) -> list[str]:
    """Compare the strata at the largest n with finding 2."""
    counts = sorted({entry["n"] for entry in plain})
    last = [entry for entry in plain if counts and entry["n"] == counts[-1]]
    if len(last) < 2:
        return []
    worst, best = min(last, key=_mean), max(last, key=_mean)
    return [
        "What is trained on. The paper: at 1,920 facts the stratum moves accuracy by 12.06 points; "
        f"stratum 0 is worst, stratum 2 best. Here, at {counts[-1]} facts, it moves by "
        f"{100 * (_mean(best) - _mean(worst)):.1f} points; stratum {worst['stratum']} is worst, "
        f"stratum {best['stratum']} best."
    ]


def _drift(root: Path, index: Mapping[str, Any], base: str) -> list[str]:
    """Compare the token drift over n with finding 3."""
    values: dict[tuple[int, Any], list[float]] = {}
    for run in index["runs"]:
        if run["strategy"] == _PLAIN and run["base"] == base and run["token_drift"]:
            report = read_json(root / run["token_drift"] / "token_drift.json")
            value = report["overall"]["kl_top10"]["mean"]
            if value is not None:
                values.setdefault((run["n"], run["stratum"]), []).append(value)
    counts = sorted({n for n, _ in values})
    if len(counts) < 2:
        return []
    by_n = [
        [sum(v) / len(v) for (n, _), v in sorted(values.items(), key=str) if n == count]
        for count in counts
    ]
    means = [sum(known) / len(known) for known in by_n]
    course = "only rises" if means == sorted(means) else "does not only rise"
    course = "only falls" if means == sorted(means, reverse=True) else course
    listed = ", ".join(f"{mean:.3f} at {n}" for mean, n in zip(means, counts, strict=True))
    return [
        "Token drift. The paper: the divergence of answers falls from 60 to 240 facts, then rises, "
        f"most for strata 0 and 1. Here, over all strata, it {course}: {listed} facts, in nats."
    ]


def _restored(root: Path, index: Mapping[str, Any], base: str) -> list[str]:
    """Compare the restoration curves at the largest n with finding 4."""
    swept = [
        run
        for run in index["runs"]
        if run["strategy"] == _PLAIN and run["base"] == base and run["sweep"]
    ]
    if not swept:
        return []
    largest = max(int(run["n"]) for run in swept)
    lines = []
    for run in swept:
        path = root / run["sweep"] / "test" / "sweep.json"
        if int(run["n"]) != largest or not path.is_file():
            continue
        curve = _curve(read_json(path))
        if 0.0 in curve and len(curve) > 1:
            shown = [_tenths(curve[ratio]) for ratio in (0.0, _AT, max(curve)) if ratio in curve]
            lines.append(
                f"stratum {run['stratum']}: {', '.join(shown)} (chosen on dev: "
                f"{run['chosen_ratio']:g}%)"
            )
    if not lines:
        return []
    return [
        "Restored weights. The paper: giving the 20% most changed weights back helps every model "
        "trained on 1,920 facts, 60% destroys all. Here, in-domain accuracy at "
        f"{largest} facts with nothing, 20% and 60% restored; {'; '.join(lines)}."
    ]


def _curve(sweep: Mapping[str, Any]) -> dict[float, float]:
    """Return the in-domain mean by ratio, also of ratios that gave the same model as others."""
    means: dict[float, float] = {}
    for point in sweep["points"]:
        if point["same_as"] is None:
            value = point["scores"]["id"]["alias_acc"]["mean"]["value"]
        else:
            value = means.get(point["same_as"])
        if value is not None:
            means[float(point["ratio"])] = value
    return means


def _strategies(seeds: list[dict[str, Any]]) -> list[str]:
    """Set the strategies at the largest common n side by side, as finding 5 does."""
    counts = sorted({e["n"] for e in seeds if e["strategy"] == _PLAIN and e["n"] is not None})
    best: dict[str, dict[str, Any]] = {}
    for entry in seeds:
        if counts and entry["n"] == counts[-1]:
            known = best.get(entry["strategy"])
            if known is None or _mean(entry) > _mean(known):
                best[entry["strategy"]] = entry
    if len(best) < 2:
        return []
    ordered = sorted(best.values(), key=_mean, reverse=True)
    listed = "; ".join(
        f"{e['strategy']} {_tenths(_mean(e))} and {_tenths(_mean(e, 'ood'))}" for e in ordered
    )
    return [
        "Strategies. The paper's best is SFT on one stratum with weights restored. Here, at "
        f"{counts[-1]} facts, each on the stratum that suits it best by these very test facts, "
        f"in-domain and out-of-domain: {listed}. The report has all strata and the intervals; "
        "differences within them are none."
    ]


def _tenths(value: float) -> str:
    return f"{100 * value:.1f}%"


def _listed(words: Iterable[str]) -> str:
    *front, last = list(words)
    return f"{', '.join(front)} and {last}" if front else last


def next_commands(root: Path) -> list[tuple[str, str]]:
    """Return commands to go on with, as pairs of a purpose and what to type."""
    index = read_json(root / "study.json")
    base = index["bases"][0]
    world, mastery = _quoted(root / (base["data"] or "")), _quoted(root / base["mastery"])
    path = _quoted(root / base["path"])
    trained = [run for run in index["runs"] if run["kind"] == "training" and run["model"]]
    run = next((run for run in trained if run["strategy"] == _PLAIN), trained[0])
    model = _quoted(root / run["model"])
    return [
        ("what the base knows, by stratum, relation and template", f"sftknow mastery {mastery}"),
        (
            "one fine-tune beside its base, fact by fact",
            f"sftknow eval {model} --base {path} --mastery {mastery} --data {world} --out eval-one",
        ),
        (
            "a fine-tune of your own: 120 facts of stratum 4",
            f"sftknow train {path} --mastery {mastery} --data {world} --stratum 4 --n 120 "
            "--learning-rate 1e-3 --out mine",
        ),
        ("the tasks in plain lm-eval: first install them, once", "sftknow install-tasks"),
        (
            "then ask any model, as with any other task",
            f"lm_eval --model hf --model_args pretrained={model} --tasks sftknow_cbqa "
            "--batch_size 32",
        ),
    ]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
