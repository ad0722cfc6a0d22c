"""Facts as token sequences: prompt and target, with the loss on the target only."""

from __future__ import annotations

from typing import Any

from sftknow_eval.errors import ModelError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.prompts import paper_prompt, paper_target

# The label that cross-entropy passes over.
IGNORED = -100


def encode_fact(tokenizer: Any, fact: Fact) -> dict[str, list[int]]:
    """Return `input_ids` and `labels` of one fact in the paper's prompt.

    The tokenizer sets its own beginning-of-sequence token, as it does in the test; the
    sequence ends in exactly one end-of-sequence token, that of the target. The prompt's
    tokens are those that the model sees in the test: where a tokenizer would merge text
    across the border between prompt and target, the target is encoded by itself.

    Raises:
        ModelError: the tokenizer has no usable end-of-sequence token.

    Source: section 3.3, appendix A.
    """
    eos_text, eos = tokenizer.eos_token, tokenizer.eos_token_id
    if eos_text is None or eos is None:
        raise ModelError(
            "The tokenizer names no end-of-sequence token, so the model could not learn where "
            "an answer ends. Set 'eos_token' in its tokenizer_config.json."
        )
    prompt, target = paper_prompt(fact.question), paper_target(fact.answer, eos_text)
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
            f"(fact {fact.id}). Declare it as a special token of the tokenizer."
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
