"""The mini-world's tokenizer: byte-level BPE trained on the world's own text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftknow_eval.world.text import ANSWER_WORD, QUESTION_WORD, Statement

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The markers of the paper's prompt, and the word whose embedding each starts from.
MARKERS = {"<|question|>": QUESTION_WORD, "<|answer|>": f" {ANSWER_WORD}"}
_BEGIN, _END = "<s>", "</s>"


def train_tokenizer(statements: Sequence[Statement], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer that puts `<s>` first by itself and knows the prompt's markers.

    The markers are ordinary tokens, not special ones: a decoded text shows them.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_BEGIN, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((f"{line.prompt} {line.answer}" for line in statements), trainer)
    backend.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A",
        pair=f"{_BEGIN} $A $B:1",
        special_tokens=[(_BEGIN, backend.token_to_id(_BEGIN))],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=_BEGIN,
        eos_token=_END,
        pad_token=_END,
        clean_up_tokenization_spaces=False,
    )
