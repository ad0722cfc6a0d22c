"""What the YAML of `sftknow_cbqa` points to: the task class, the shots and the judge.

A leaf is an ordinary lm-eval task described in YAML. The class adds three things that YAML
cannot say: where the documents come from, the prompt style in the leaf's displayed name, and
the special tokens that some engines leave in their outputs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from sftknow_eval.evaluation.documents import Document, ShotPool, load_task_data
from sftknow_eval.evaluation.prompts import answer_part
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.matching import (
    contains,
    contains_word,
    exact_match,
    strip_special,
    token_f1,
)

logger = logging.getLogger(__name__)

METRICS = ("alias_acc", "alias_word_acc", "exact_match", "token_f1")

# For models behind an interface, whose tokenizer is not here: the common marks of begin and end.
COMMON_SPECIAL_TOKENS = (
    *("<s>", "</s>", "<pad>", "<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end|>"),
)


def judge(document: Document, results: Sequence[str]) -> dict[str, float]:
    """Return the scores of one fact by metric; nothing for the sentinel of an empty stratum.

    Source: section 3.1 (`alias_acc`); the other three are for comparison.
    """
    if not document["id"]:
        return {}
    text, aliases = results[0], document["aliases"]
    return {
        "alias_acc": int(contains(text, aliases)),
        "alias_word_acc": int(contains_word(text, aliases)),
        "exact_match": int(exact_match(text, aliases)),
        "token_f1": token_f1(text, aliases),
    }


class FactTask(ConfigurableTask):  # type: ignore[misc]
    """One domain and stratum of the facts that `--metadata` selects."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take the leaf's documents from those of the run, and record what they are."""
        assert dataset_kwargs is not None
        settings = read_settings(self.config.metadata)
        data = load_task_data(settings)
        leaf = data.leaf(dataset_kwargs["domain"], dataset_kwargs["stratum"])
        self.dataset = {"facts": leaf, "shots": [data.shots]}
        self._tokenizer = settings.tokenizer
        self._style = data.renderer.style
        self.config.metadata["sftknow"] = data.record
        self.config.task_alias = f"{self.config.task} ({self._style}, {data.record['split']})"

    def process_results(self, doc: Document, results: Sequence[str]) -> dict[str, Any]:
        """Judge the answer in an output; with --predict_only, judge nothing."""
        text = strip_special(results[0], special_tokens(self._tokenizer))
        answer = answer_part(text, self._style, self.config.num_fewshot or 0)
        scores: dict[str, Any] = super().process_results(doc, [answer])
        return scores


class FixedShots(ContextSampler):  # type: ignore[misc]
    """The same shots for every fact of a run, whatever the order, the limit or the rank.

    lm-eval's own sampler draws anew for each document, in the order of the documents.
    """

    def set_rnd(self, rnd: int | None) -> FixedShots:
        """Remember the seed that lm-eval gives (`--seed`, fourth number)."""
        self.seed = rnd
        super().set_rnd(rnd)
        return self

    def sample(
        self, n: int, eval_doc: Document | None = None, df: Any = None, **_: Any
    ) -> list[Document]:
        """Return `n` shots from the pool, which excludes all tested facts."""
        pool: ShotPool = self.df[0]
        return pool.draw(n, self.seed)


@functools.lru_cache(maxsize=8)
def special_tokens(tokenizer: str | None) -> tuple[str, ...]:
    """Return the texts that a tokenizer marks as special, longest first.

    These are what transformers leaves out when it decodes, so that engines which keep them are
    judged alike. Without a tokenizer at hand, the usual marks of begin and end.
    """
    if tokenizer is None:
        return COMMON_SPECIAL_TOKENS
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except Exception as error:
        logger.info("No tokenizer '%s' here (%s): common special tokens used", tokenizer, error)
        return COMMON_SPECIAL_TOKENS
    marked = {token.content for token in loaded.added_tokens_decoder.values() if token.special}
    return tuple(sorted(marked | set(loaded.all_special_tokens), key=lambda t: (-len(t), t)))
