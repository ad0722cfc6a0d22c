"""Short greedy answers from lm-eval's transformers model, in half the time.

lm-eval generates through transformers' `generate`, in which a batch goes on until its last
answer has ended, and looks at the decoded text after every token. Answers to facts are a few
tokens long with few exceptions, so most of that work is for rows that have ended. Here a row
leaves its batch, and the cache, when it ends, and texts are decoded once.

Batches are lm-eval's own (the same prompts, padded alike), and so is what is made of the
tokens. Requests of any other kind go to lm-eval's method: stop strings, sampling, models
with other caches, logits processors in the model's generation config.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from sftknow_eval.decoding import GreedyBatch

# Entries of a generation config that do not bear on greedy decoding, or that are looked at here.
_HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "use_cache"),
    *("do_sample", "temperature", "top_p", "top_k", "max_length", "_from_model_config"),
    *("output_attentions", "output_hidden_states", "max_new_tokens"),
}
_ASKED = {"do_sample": False, "temperature": 0.0, "until": []}


class GreedyHF(HFLM):  # type: ignore[misc]
    """lm-eval's `hf` with short greedy answers made faster."""

    _model: Any
    # A sweep asks the same of every model; its tokens are made once.
    _last: tuple[list[str], list[list[int]]] = ([], [])

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each request's context, as lm-eval's `hf` does."""
        settings = [request.args[1] for request in requests]
        if not requests or any(other != settings[0] for other in settings):
            return self._as_lm_eval(requests, disable_tqdm)
        ends = self._end_ids()
        if ends is None or not self._is_simple(settings[0]):
            return self._as_lm_eval(requests, disable_tqdm)
        contexts = [request.args[0] for request in requests]
        encoded = self._encoded(contexts, self.max_length - settings[0]["max_gen_toks"])
        if encoded is None:
            return self._as_lm_eval(requests, disable_tqdm)
        # As lm-eval: longest first, and equal lengths by their text.
        order = sorted(range(len(contexts)), key=lambda i: (-len(encoded[i]), contexts[i]))
        texts: dict[int, str] = {}
        bar = tqdm(
            total=len(order),
            disable=disable_tqdm or self.rank != 0,
            desc="Running generate_until requests",
        )
        with bar:
            for batch in _cut(order, int(self.batch_size)):
                rows = self._answers([encoded[i] for i in batch], settings[0]["max_gen_toks"], ends)
                for i, text in zip(batch, self._decoded(rows), strict=True):
                    texts[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
                bar.update(len(batch))
        return [texts[i] for i in range(len(contexts))]

    def _as_lm_eval(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        found: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return found

    def _is_simple(self, settings: dict[str, Any]) -> bool:
        """Say whether requests ask for greedy text that ends with the end token only."""
        asked = {name: value for name, value in settings.items() if name != "max_gen_toks"}
        if any(name not in _ASKED or value != _ASKED[name] for name, value in asked.items()):
            return False
        config = self._model.generation_config
        tokenizer = self.tokenizer
        return (
            isinstance(settings.get("max_gen_toks"), int)
            and 0 < settings["max_gen_toks"] < self.max_length
            and asked.get("do_sample") is False
            and self.AUTO_MODEL_CLASS is AutoModelForCausalLM
            and str(self.batch_size).isdecimal()
            and not self.truncation
            and self.think_end_token is None
            and self.mixed_precision_dtype is None
            and set(config.to_diff_dict()) <= _HARMLESS
            and tokenizer.pad_token_id in tokenizer.all_special_ids
            and self._has_plain_cache()
        )

    def _has_plain_cache(self) -> bool:
        if not self._model._supports_default_dynamic_cache():
            return False
        layers = DynamicCache(config=self._model.config.get_text_config(decoder=True)).layers
        return all(type(each) in (DynamicLayer, DynamicSlidingWindowLayer) for each in layers)

    def _end_ids(self) -> list[int] | None:
        """Return the tokens that end an answer; None where the tokenizer's is not among them.

        lm-eval would then look for its text, and go on until all rows of a batch have it.
        """
        found = self._model.generation_config.eos_token_id
        ids = list(found) if isinstance(found, (list, tuple)) else [found]
        special = self.tokenizer.all_special_ids
        ended = self.tokenizer.eos_token_id
        return ids if ended in ids and all(i in special for i in ids) else None

    def _encoded(self, contexts: list[str], room: int) -> list[list[int]] | None:
        """Return the tokens of each context; None where lm-eval's own batches would matter."""
        bos = getattr(self.tokenizer, "bos_token", None)
        begins = {has_bos_prefix(context, bos) for context in contexts}
        if len(begins) > 1:  # lm-eval goes by the first context of each batch
            return None
        given = {"add_special_tokens": False} if begins == {True} else {}
        if not given and self.add_bos_token is not None:
            given = {"add_special_tokens": self.add_bos_token}
        if self._last[0] != contexts:
            self._last = contexts, self.tokenizer(contexts, **given)["input_ids"]
        encoded = self._last[1]
        return encoded if max(map(len, encoded)) <= room else None

    @torch.no_grad()
    def _answers(
        self, prompts: Sequence[Sequence[int]], most: int, ends: Sequence[int]
    ) -> list[list[int]]:
        """Return the tokens of each answer, without the token that ended it."""
        answers: list[list[int]] = [[] for _ in prompts]
        batch = GreedyBatch(self._model, prompts, self.tokenizer.pad_token_id)
        for step in range(most):
            token_N = batch.next_logits().argmax(dim=-1)
            for place, (row, token) in enumerate(zip(batch.rows, token_N.tolist(), strict=True)):
                if batch.alive[place] and not (ended := token in ends):
                    answers[row].append(token)
                elif batch.alive[place] and ended:
                    batch.alive[place] = False
            if step + 1 == most or not any(batch.alive):
                break
            batch.go_on(token_N)
        return answers

    def _decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each answer, cut where the end token is spelt out."""
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.split(end)[0] if end else text for text in texts]


def _cut(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield `size` numbers at a time."""
    for start in range(0, len(order), size):
        yield order[start : start + size]
