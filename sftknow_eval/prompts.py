"""The question prompt of the paper, the same in training and in the test.

The markers are ordinary text unless the tokenizer has them as tokens; the beginning-of-sequence
token is the tokenizer's own and stands in no text.

Source: appendix A.
"""

from __future__ import annotations


def paper_prompt(question: str) -> str:
    """Return the prompt that asks a question, without the beginning-of-sequence token."""
    return f"<|question|> {question} <|answer|>"


def paper_target(answer: str, eos: str) -> str:
    """Return what is to follow the prompt: the answer and the end-of-sequence text."""
    return f" {answer} {eos}"
