"""The judge again, on all outputs of a model at once.

It is `matching.contains` on the answer part of the output without special tokens, as in the
tasks. Most aliases are ASCII and most outputs hold no special token, so both are looked for at
once before the judge is asked fact by fact; a test holds the verdicts equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftknow_eval.evaluation.prompts import answer_part
from sftknow_eval.mastery.matching import contains, strip_special

if TYPE_CHECKING:
    from sftknow_eval.leaderboard.manifest_parts import Asking

_BETWEEN = "\x00"


def judge_outputs(
    outputs: Sequence[str], aliases: Sequence[tuple[str, ...]], asking: Asking
) -> np.ndarray:
    """Return the verdict `alias_acc` on every output; bool (facts)."""
    texts = _without_special(outputs, asking.special_tokens)
    if asking.style == "plain" or asking.num_fewshot:
        texts = [answer_part(text, asking.style, asking.num_fewshot) for text in texts]
    else:
        texts = [text.lstrip() for text in texts]
    # The first form decides nearly always, and calling a function for it costs more than looking.
    verdicts = [
        forms[0] in text or ((len(forms) > 1 or not forms[0].isascii()) and _found(text, forms))
        for text, forms in zip(texts, aliases, strict=True)
    ]
    return np.array(verdicts, bool)


def _without_special(outputs: Sequence[str], tokens: Sequence[str]) -> Sequence[str]:
    """Return the outputs without special tokens, all in one pass where nothing can run together."""
    joined = _BETWEEN.join(outputs)
    if not any(token in joined for token in tokens):
        return outputs
    apart = joined.count(_BETWEEN) == len(outputs) - 1
    if not apart or any(_BETWEEN in token for token in tokens):
        return [strip_special(output, tokens) for output in outputs]
    return strip_special(joined, tokens).split(_BETWEEN)


def _found(text: str, aliases: tuple[str, ...]) -> bool:
    for alias in aliases:
        if alias in text:
            return True
        if not alias.isascii():
            return contains(text, aliases)
    return False
