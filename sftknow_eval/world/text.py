"""The text that the mini-world's base model is pre-trained on: its facts, stated and asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from sftknow_eval.world.facts import WorldFact
from sftknow_eval.world.patterns import OPENINGS, PATTERNS, template
from sftknow_eval.world.settings import WorldSettings

QUESTION_WORD, ANSWER_WORD = "question", "answer"


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of the pre-training text: the loss is on the object only."""

    prompt: str
    answer: str


def make_text(
    settings: WorldSettings, facts: Iterable[WorldFact], aliases: dict[str, str]
) -> list[Statement]:
    """Return the statements of all facts, in random order.

    A fact is never stated, or 2 to 48 times (log-uniformly), in only 1 to 4 of its relation's
    4 cores, so that how well it is known varies from fact to fact and over the templates.
    """
    random = Random(f"{settings.seed}|text")
    fewest, most = (math.log(count) for count in settings.exposures)
    statements = []
    for fact in facts:
        seen = random.random() >= settings.unseen
        count = round(math.exp(random.uniform(fewest, most))) if seen else 0
        pattern = PATTERNS[fact.relation]
        cores = random.sample(pattern.cores, random.randint(1, len(pattern.cores)))
        for _ in range(count):
            if random.random() < settings.question_share:
                prompt = f"{QUESTION_WORD} {fact.question} {ANSWER_WORD}"
            else:
                pick = template(random.choice(cores), random.choice(OPENINGS))
                prompt = pick.format(subject=fact.subject)
            alias = aliases.get(fact.answer)
            says_alias = alias is not None and random.random() < settings.alias_use
            statements.append(Statement(prompt, alias if says_alias and alias else fact.answer))
    random.shuffle(statements)
    return statements
