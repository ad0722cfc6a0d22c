"""The training sequence: exact tokens, and the loss on the target alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from sftknow_eval.errors import ModelError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.training.encode import encode_fact

FACT = Fact(
    "P19-train-0000", "P19", "id", "train", "Ada Lovelace", "Where was Ada Lovelace born?",
    "London", ("London",),
)  # fmt: skip


@pytest.fixture
def tokenizer(random_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(random_model)


def expected(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens put together piece by piece: `<s>` is 0 and `</s>` is 1 in this tokenizer."""

    def pieces(text: str) -> list[int]:
        return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    prompt = [0, *pieces("<|question|> Where was Ada Lovelace born? <|answer|>")]
    return prompt, [*pieces(" London"), *pieces(" "), 1]


def test_one_bos_prompt_target_one_eos(tokenizer: Any) -> None:
    prompt, target = expected(tokenizer)
    assert encode_fact(tokenizer, FACT) == {
        "input_ids": prompt + target,
        "labels": [-100] * len(prompt) + target,
    }
    text = tokenizer.decode(prompt + target)
    assert text == "<s><|question|> Where was Ada Lovelace born? <|answer|> London </s>"


def test_a_tokenizer_that_adds_its_own_eos_gives_the_same_tokens(tokenizer: Any) -> None:
    plain = encode_fact(tokenizer, FACT)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("x")["input_ids"][-1] == 1  # it does add one
    assert encode_fact(tokenizer, FACT) == plain


def test_a_tokenizer_without_bos_gets_none(tokenizer: Any) -> None:
    plain = encode_fact(tokenizer, FACT)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    assert encode_fact(tokenizer, FACT)["input_ids"] == plain["input_ids"][1:]


def test_a_merge_across_the_border_leaves_the_prompt_as_in_the_test(tokenizer: Any) -> None:
    class Merging:
        """Encodes the joint text's beginning differently from the prompt alone."""

        eos_token, eos_token_id = "</s>", 1

        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            ids = tokenizer(text, **options)["input_ids"]
            joint = text.startswith("<|question|>") and text.endswith("</s>")
            return {"input_ids": [*ids[:5], 99, *ids[7:]] if joint else ids}

    prompt, target = expected(tokenizer)
    assert encode_fact(Merging(), FACT)["input_ids"] == prompt + target


def test_a_tokenizer_without_eos_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        encode_fact(tokenizer, FACT)


def test_an_eos_that_is_split_like_text_is_refused(tokenizer: Any) -> None:
    class Splitting:
        eos_token, eos_token_id = "</s>", 1

        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            return {"input_ids": [7 if i == 1 else i for i in tokenizer(text)["input_ids"]]}

    with pytest.raises(ModelError, match="like ordinary text"):
        encode_fact(Splitting(), FACT)
