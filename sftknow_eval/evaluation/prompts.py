"""The prompt styles: how a fact is put to a model, and where its answer ends.

    paper       the prompt of training: <|question|> Where ...? <|answer|>
    plain       Question: Where ...?  Answer:
    chat        one user message, to be rendered by the model's chat template
    completion  the relation's best template, for base models

Source: appendix A (paper), section 4 (completion).
"""

from __future__ import annotations

from typing import Literal, get_args

from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.templates import Templates
from sftknow_eval.prompts import paper_prompt

Style = Literal["paper", "plain", "chat", "completion"]
STYLES: tuple[Style, ...] = get_args(Style)

# lm-eval puts this between shots (`fewshot_delimiter` of the tasks).
SHOT_DELIMITER = "\n\n"
_NEXT_QUESTION = "\nQuestion:"


def check_style(style: str) -> Style:
    """Return `style` if there is such a prompt style.

    Raises:
        SettingsError: there is none; the known ones are listed.
    """
    for known in STYLES:
        if style == known:
            return known
    raise SettingsError(f"The prompt style '{style}' is unknown. Known are {', '.join(STYLES)}.")


def question_prompt(style: Style, question: str) -> str:
    """Return the prompt of a style that asks the question itself."""
    if style == "paper":
        return paper_prompt(question)
    if style == "plain":
        return f"Question: {question}\nAnswer:"
    if style == "chat":
        return f"Answer in a few words. {question}"
    raise ValueError(f"the style '{style}' asks no question")


def completion_prompt(fact: Fact, templates: Templates, index: int) -> str:
    """Return the prompt that a base model completes with the object."""
    return templates.prompt(fact, index)


def answer_part(output: str, style: Style, shots: int) -> str:
    """Return the part of an output that answers the question asked.

    Without shots that is the whole output, as in the paper; after `plain` prompts a model may
    go on to a next question of its own making, which is cut off. With shots the answer ends
    where the next shot would begin.

    Args:
        output: what the model wrote, without special tokens.
        style: of the prompt.
        shots: number of shots in the prompt.
    """
    answer = output.lstrip()
    if style == "plain":
        answer = answer.partition(_NEXT_QUESTION)[0]
    if shots and style != "chat":
        answer = answer.partition(SHOT_DELIMITER)[0]
    return answer
