"""What a probe would cost: exact counts, token counts from a sample, hours from a measurement."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.job import ProbeJob
from sftknow_eval.mastery.probe_settings import select_facts
from sftknow_eval.mastery.sampling import Request, Sampler, request_seed

_COUNTED_PROMPTS = 2_000
_FIRST_ROUND = 48
_LAST_ROUND = 3_072
_ENOUGH_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The size of a probe and how long it would take.

    Attributes:
        prompt_tokens: over all prompts; exact where `prompts_counted` equals `prompts`, else
            scaled up from an even sample of that size.
        most_new_tokens: upper bound: every completion at its full length.
        prompts_measured: prompts really sampled, in `seconds_measured`.
        hours: an estimate by their rate. Small samples fill an engine worse than a full
            probe does, so it errs on the long side.
    """

    facts: int
    prompts: int
    completions: int
    prompt_tokens: int
    prompts_counted: int
    most_new_tokens: int
    prompts_measured: int
    seconds_measured: float
    hours: float


def estimate(job: ProbeJob) -> Estimate:
    """Count a probe's work and time a small part of it; writes nothing."""
    facts = select_facts(job.dataset, job.settings)
    prompts = len(facts) * job.templates.count
    counted, tokens = _count_tokens(job, facts)
    with job.sampler() as start:
        measured, seconds = _measure(job, facts, start())
    completions = prompts * job.settings.n_samples
    return Estimate(
        facts=len(facts),
        prompts=prompts,
        completions=completions,
        prompt_tokens=round(tokens * prompts / counted),
        prompts_counted=counted,
        most_new_tokens=completions * job.settings.max_tokens,
        prompts_measured=measured,
        seconds_measured=seconds,
        hours=seconds / measured * prompts / 3600,
    )


def _spread(facts: Sequence[Fact], n: int) -> Iterator[Fact]:
    """Yield `n` facts evenly spaced over `facts`, or all when there are fewer."""
    n = min(n, len(facts))
    return (facts[i * len(facts) // n] for i in range(n))


def _count_tokens(job: ProbeJob, facts: Sequence[Fact]) -> tuple[int, int]:
    from sftknow_eval.mastery.hf_model import load_tokenizer

    tokenizer = load_tokenizer(
        job.model_folder,
        job.settings.base,
        bool(job.settings.engine_args.get("trust_remote_code", False)),
    )
    n_templates = job.templates.count
    texts = [
        job.templates.prompt(fact, template)
        for fact in _spread(facts, -(-_COUNTED_PROMPTS // n_templates))
        for template in range(n_templates)
    ]
    return len(texts), sum(len(ids) for ids in tokenizer(texts)["input_ids"])


def _measure(job: ProbeJob, facts: Sequence[Fact], sampler: Sampler) -> tuple[int, float]:
    """Return how many prompts were sampled in the last and longest round, and its seconds."""
    _sample(job, facts[:1], sampler)  # the first batch pays for compilation and caches
    n_prompts = _FIRST_ROUND
    while True:
        n_facts = -(-n_prompts // job.templates.count)
        begin = time.perf_counter()
        measured = _sample(job, list(_spread(facts, n_facts)), sampler)
        seconds = time.perf_counter() - begin
        if seconds >= _ENOUGH_SECONDS or n_prompts >= _LAST_ROUND or n_facts >= len(facts):
            return measured, seconds
        n_prompts *= 4


def _sample(job: ProbeJob, facts: Sequence[Fact], sampler: Sampler) -> int:
    n_templates, settings = job.templates.count, job.settings
    requests = (
        Request(
            position * n_templates + template,
            job.templates.prompt(fact, template),
            request_seed(settings.seed, fact.id, template),
            fact.aliases if settings.answer_stop else (),
        )
        for position, fact in enumerate(facts)
        for template in range(n_templates)
    )
    return sum(1 for _ in sampler.sample(requests))
