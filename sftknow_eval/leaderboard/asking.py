"""How a model was asked, for the manifest; and that our judge says the same again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.evidence import Evidence
from sftknow_eval.leaderboard.judging import judge_outputs
from sftknow_eval.leaderboard.manifest_parts import Asking
from sftknow_eval.mastery.facts import Fact


def asking_of(record: Mapping[str, Any], model: Path | str, documents: str) -> Asking:
    """Return how a model was asked.

    Args:
        record: what the results say of the model (`finetuned` or `base`).
        model: whose tokenizer says which tokens are special.
        documents: digest of the facts asked.
    """
    return Asking(
        style=record["style"],
        num_fewshot=record["num_fewshot"],
        special_tokens=special_tokens_of(model),
        split="test",
        documents=documents,
        backend=record["backend"],
        dtype=str(record["engine_args"].get("dtype", "auto")).lower(),
        versions={name: str(version) for name, version in record["versions"].items()},
    )


def special_tokens_of(model: Path | str) -> tuple[str, ...]:
    """Return the special tokens of a model's tokenizer, as the tasks take them out of outputs.

    They are read from the tokenizer's files where these say all: asking transformers takes seconds.
    """
    folder = Path(model)
    file = folder / "tokenizer.json"
    if not file.is_file():
        from sftknow_eval.evaluation.tasks import special_tokens

        return special_tokens(str(model))
    added = read_json(file).get("added_tokens") or []
    found = {token["content"] for token in added if token.get("special")}
    config = folder / "tokenizer_config.json"
    if config.is_file():
        found.update(_named_tokens(read_json(config)))
    return tuple(sorted(found, key=lambda token: (-len(token), token)))


def _named_tokens(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tokens that a tokenizer's configuration names: begin, end, padding, ..."""
    for name, value in config.items():
        if not name.endswith(("_token", "special_tokens")):
            continue
        if isinstance(value, Mapping) and "content" not in value:
            value = list(value.values())
        for token in value if isinstance(value, list) else [value]:
            text = token.get("content") if isinstance(token, Mapping) else token
            if isinstance(text, str):
                yield text


def judged(evidence: Evidence, facts: Sequence[Fact], asking: Asking, whose: str) -> Evidence:
    """Return the evidence with our verdicts; they have to be those of the evaluation.

    Raises:
        SubmissionError: they are not: the texts were judged with other special tokens or aliases.
    """
    verdicts = judge_outputs(evidence.outputs, [fact.aliases for fact in facts], asking)
    wrong = np.flatnonzero(verdicts != evidence.correct)
    if len(wrong):
        raise SubmissionError(
            f"The judge differs from the evaluation of {whose} on {len(wrong)} facts, such as "
            f"{evidence.fact_ids[wrong[0]]}. Was it evaluated on other data, or is its tokenizer "
            "no longer where it was? Evaluate again with this version."
        )
    return dataclasses.replace(evidence, correct=verdicts)
