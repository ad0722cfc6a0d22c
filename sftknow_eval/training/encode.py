"""Prompts and targets as token sequences, with the loss on the target only."""

from __future__ import annotations

from typing import Any

from sftknow_eval.errors import ModelError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.prompts import paper_prompt, paper_target

# The label that cross-entropy passes over.
IGNORED = -100


def encode_fact(tokenizer: Any, fact: Fact) -> dict[str, list[int]]:
    """Return `input_ids` and `labels` of one fact in the paper's prompt.

    Raises:
        ModelError: the tokenizer has no usable end-of-sequence token.

    Source: section 3.3, appendix A.
    """
    return encode_pair(
        tokenizer, paper_prompt(fact.question), paper_target(fact.answer, ""), fact.id
    )


def encode_pair(tokenizer: Any, prompt: str, target: str, named: str) -> dict[str, list[int]]:
    """Return `input_ids` and `labels` of a prompt and what is to follow it.

    The tokenizer sets its own beginning-of-sequence token, as it does in the test; the
    sequence ends in exactly one end-of-sequence token, which the loss counts. The prompt's
    tokens are those that the model sees in the test: where a tokenizer would merge text
    across the border between prompt and target, the target is encoded by itself.

    Args:
        tokenizer: of the model.
        prompt: as the model is asked; not empty.
        target: what it is to answer, without the end-of-sequence token.
        named: what an error calls the pair.

    Raises:
        ModelError: the tokenizer has no usable end-of-sequence token.
    """
    eos_text, eos = tokenizer.eos_token, tokenizer.eos_token_id
    if eos_text is None or eos is None:
        raise ModelError(
            "The tokenizer names no end-of-sequence token, so the model could not learn where "
            "an answer ends. Set 'eos_token' in its tokenizer_config.json."
        )
    target = f"{target}{eos_text}"
    prompt_ids = _without_trailing(tokenizer(prompt)["input_ids"], eos)
    ids = tokenizer(prompt + target)["input_ids"]
    if ids[: len(prompt_ids)] == prompt_ids:
        target_ids = ids[len(prompt_ids) :]
    else:
        target_ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    answer_ids = _without_trailing(target_ids, eos)
    if not answer_ids or len(answer_ids) == len(target_ids):
        raise ModelError(
            f"The tokenizer splits its end-of-sequence token {eos_text!r} like ordinary text "
            f"({named}). Declare it as a special token of the tokenizer."
        )
    target_ids = [*answer_ids, eos]
    return {
        "input_ids": prompt_ids + target_ids,
        "labels": [IGNORED] * len(prompt_ids) + target_ids,
    }


def _without_trailing(ids: list[int], token: int) -> list[int]:
    # Some tokenizers add an end-of-sequence token of their own.
    end = len(ids)
    while end and ids[end - 1] == token:
        end -= 1
    return list(ids[:end])
