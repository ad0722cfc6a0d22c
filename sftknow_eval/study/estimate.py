"""What a study would cost: device-hours and disk, from counts and stated assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sftknow_eval.study.plan import Plan, Run
from sftknow_eval.study.sizes import Size, size_of
from sftknow_eval.study.step import Step

PROMPT_TOKENS = 24
ANSWER_TOKENS = 16
_TEMPLATES = 21
# What a sweep, a layer step and a curve count their points by.
_POINTS = ("ratios", "ranges", "weights")
# Of a task that is not about facts, where the file does not limit it.
_DOCUMENTS, _LONG_ANSWER_TOKENS = 1_000, 128
_READ_BYTES_PER_SECOND = 1e9
# Without a known size a model counts as one of a billion weights, and the plan says so.
_UNKNOWN = 1e9
# An adapter on all linear layers has about a hundredth of the weights.
_ADAPTER_BYTES = 0.04


@dataclass
class Kind:
    """The steps of one kind: how many, how many are finished, and what the others cost."""

    steps: int = 0
    finished: int = 0
    seconds: float = 0.0
    bytes: float = 0.0


@dataclass
class Estimate:
    """Of a whole plan.

    Attributes:
        kinds: by kind of step.
        left_out: runs whose stratum is too small, with the numbers.
        assumptions: in words, one a line.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """Return the hours of one device."""
        return sum(kind.seconds for kind in self.kinds.values()) / 3600

    @property
    def bytes(self) -> float:
        """Return the bytes that will be written."""
        return sum(kind.bytes for kind in self.kinds.values())


def estimate(plan: Plan, root: Path | None, finished: set[str]) -> Estimate:
    """Estimate the steps that are not finished.

    Args:
        plan: the steps.
        root: the study's folder, if there is one.
        finished: names of steps that are done.
    """
    sizes = {base.id: size_of(plan, root, base) for base in plan.study.bases}
    found = Estimate(assumptions=_assumptions(plan, sizes))
    absent = set()
    for run in plan.runs.values():
        cell, size = run.cell, sizes[run.cell.base]
        if cell.n is not None and not size.trained(cell.stratum, cell.n):
            there = size.train[int(str(cell.stratum))] if size.train else 0
            found.left_out.append(f"{cell.id}: {cell.n} facts asked for, there are {there}")
            absent.add(cell.id)
    for step in plan.steps.values():
        kind = found.kinds.setdefault(step.kind, Kind())
        if step.run in absent:
            continue
        kind.steps += 1
        if step.name in finished:
            kind.finished += 1
            continue
        owner = plan.runs[step.run] if step.run else None
        size = sizes[owner.cell.base if owner else _base_of(plan, step)]
        seconds, written = _cost(plan, step, owner, size)
        kind.seconds += seconds
        kind.bytes += written
    return found


def _base_of(plan: Plan, step: Step) -> str:
    return next(
        (base for base, places in plan.places.items() if step.name in places.needs),
        plan.study.bases[0].id,
    )


def _cost(plan: Plan, step: Step, run: Run | None, size: Size) -> tuple[float, float]:
    """Return the seconds of one device, and the bytes written."""
    compute = plan.study.compute
    weights = size.parameters or _UNKNOWN
    rate = compute.tokens_per_second * compute.gpus / (weights / 1e9)
    flops = compute.tflops * compute.gpus * 1e12
    start, asked = compute.start_seconds, ANSWER_TOKENS / rate
    if step.kind == "probe":
        limit = plan.study.probe.limit
        facts = min(limit, sum(size.facts.values())) if limit else sum(size.facts.values())
        samples = facts * _TEMPLATES * plan.study.probe.n_samples
        return start + samples * plan.study.probe.max_new_tokens / rate, 30.0 * facts
    if step.kind == "train":
        cell = run.cell if run else None
        n = size.trained(cell.stratum, cell.n) if cell else None
        tokens = (n or size.facts["train"]) * (PROMPT_TOKENS + ANSWER_TOKENS)
        return start + 6 * weights * tokens / flops, weights * _saved_bytes(step)
    if step.kind in ("evaluate", "restored"):
        facts = size.facts[str(step.settings["split"])]
        return start + facts * asked, 100.0 * facts
    if step.kind == "other-task":
        documents = step.settings["limit"] or _DOCUMENTS
        asked = _LONG_ANSWER_TOKENS / rate
        return start + len(step.settings["ratios"]) * documents * asked, 1e6
    if step.kind in ("sweep", "layers", "interpolation-curve"):
        return _swept(step, size, start, asked)
    if step.kind == "tokens":
        tokens = size.facts["test"] * PROMPT_TOKENS * 2
        return 2 * start + 2 * weights * tokens / flops, 100.0 * size.facts["test"]
    if step.kind == "weights":
        return 2 * 2 * weights / _READ_BYTES_PER_SECOND, 1e5
    return 0.0, 0.0


def _saved_bytes(step: Step) -> float:
    """Return the bytes that a training saves for each weight of the base."""
    adapter = step.settings["strategy"].get("adapter")
    if adapter and adapter.get("save", "adapter") == "adapter":
        return _ADAPTER_BYTES
    training = step.settings["training"]
    dtype = training.get("save_dtype") or training.get("dtype") or "float32"
    return 2.0 if dtype == "bfloat16" else 4.0


def _swept(step: Step, size: Size, start: float, asked: float) -> tuple[float, float]:
    splits = step.settings.get("splits", ["test"])
    points = len(next(step.settings[n] for n in _POINTS if n in step.settings))
    facts = points * sum(size.facts[str(split)] for split in splits)
    return start + facts * asked, 100.0 * facts


def _assumptions(plan: Plan, sizes: Mapping[str, Size]) -> list[str]:
    compute = plan.study.compute
    device = "GPU" if compute.device == "gpu" else "CPU process"
    lines = [
        f"{PROMPT_TOKENS} tokens a prompt, {ANSWER_TOKENS} an answer; "
        f"{plan.study.probe.max_new_tokens} a sampled completion, none ends early",
        f"{compute.tflops:g} TFLOP/s of one {device} in training, 6 FLOP a weight and token",
        f"{compute.tokens_per_second:g} tokens/s generated by one {device} for a billion weights",
        f"{_LONG_ANSWER_TOKENS} tokens an answer of other tasks",
        f"{compute.start_seconds:g} s to start an engine or a trainer; every fine-tune is kept",
    ]
    for name, size in sizes.items():
        weights = (
            f"{size.parameters:,.0f} weights"
            if size.parameters
            else "size of the model not known: one billion weights assumed"
        )
        facts = ", ".join(f"{count:,} {split}" for split, count in size.facts.items())
        lines.append(f"{name}: {weights}; facts {facts} ({size.source})")
    return lines
