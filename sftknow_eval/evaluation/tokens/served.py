"""Token drift with vLLM: the log-probabilities of given tokens, one engine after the other.

The fine-tune says its likeliest tokens; the base, which gives the log-probabilities of just
those tokens, also writes the completion that is read for whether the answer comes first.
Log-probabilities differ from logits by a constant of the row, which renormalising takes out.
Distributions over the whole vocabulary are left out: vLLM hands each entry over as an object
of its own, which takes minutes where transformers takes seconds.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sftknow_eval.drift.token_kl import TOP, top_kl
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.tokens.measures import FactDrift
from sftknow_eval.evaluation.tokens.request import NEW_TOKENS, Comparison, Side
from sftknow_eval.evaluation.tokens.vocabulary import SharedVocabulary, shared_vocabulary
from sftknow_eval.mastery.matching import begins
from sftknow_eval.mastery.vllm_engine import close_engine, start_engine

# Tokens without a counterpart in the base may be among the likeliest: so many more are asked for.
_MOST_LEFT_OUT = 64


class ServedModels:
    """Both models in engines of vLLM, one after the other.

    Args:
        comparison: models and facts.
        engine_args: of vLLM's engines.
    """

    def __init__(self, comparison: Comparison, engine_args: Mapping[str, Any]) -> None:
        self._comparison, self._arguments = comparison, dict(engine_args)
        self._shared: SharedVocabulary | None = None
        self.dtypes: dict[str, str] = {}

    @property
    def shared(self) -> SharedVocabulary:
        """The vocabulary compared over, once `measure` has started the engines."""
        assert self._shared is not None
        return self._shared

    def measure(self) -> list[FactDrift]:
        """Return the drift of every fact, in their order."""
        likeliest = self._likeliest()
        found = []
        for fact, ours, (text, base) in zip(
            self._comparison.facts, likeliest, self._of_base(likeliest), strict=True
        ):
            finetuned_NK = torch.tensor([list(ours.values())])
            base_NK = torch.tensor([[base[token] for token in ours]])
            first = begins(text, fact.document["aliases"])
            found.append(FactDrift(top_kl(finetuned_NK, base_NK).item(), None, None, first))
        return found

    def _likeliest(self) -> list[dict[int, float]]:
        """Return the fine-tune's likeliest shared tokens of each fact, and their logarithms."""
        from vllm import SamplingParams

        prompts = [fact.finetuned_tokens for fact in self._comparison.facts]
        with self._engine(self._comparison.finetuned, "finetuned") as llm:
            self._shared = self._compare_vocabularies()
            asked = TOP + self.shared.left_out
            one = SamplingParams(max_tokens=1, temperature=0, logprobs=asked, detokenize=False)
            outputs = _generate(llm, prompts, [one] * len(prompts), self._comparison.finetuned)
            shared = set(self.shared.ids.tolist())
            return [_largest(output.outputs[0].logprobs[0], shared) for output in outputs]

    def _of_base(
        self, likeliest: Sequence[Mapping[int, float]]
    ) -> Iterator[tuple[str, dict[int, float]]]:
        """Yield the base's completion and its logarithms of the likeliest tokens."""
        from vllm import SamplingParams

        prompts = [fact.base_tokens for fact in self._comparison.facts]
        parameters = [
            SamplingParams(max_tokens=NEW_TOKENS, temperature=0, logprob_token_ids=list(tokens))
            for tokens in likeliest
        ]
        with self._engine(self._comparison.base, "base") as llm:
            outputs = _generate(llm, prompts, parameters, self._comparison.base)
        for output in outputs:
            first = output.outputs[0].logprobs[0]
            yield output.outputs[0].text, {t: entry.logprob for t, entry in first.items()}

    @contextmanager
    def _engine(self, side: Side, role: str) -> Iterator[Any]:
        arguments: dict[str, Any] = {"max_logprobs": TOP + _MOST_LEFT_OUT, **self._arguments}
        if side.adapter is not None:
            rank = side.adapter.model_args("vllm")["max_lora_rank"]
            arguments |= {"enable_lora": True, "max_lora_rank": rank}
        llm, guard = start_engine(str(side.folder), arguments, revision=None, max_tokens=NEW_TOKENS)
        model = llm.llm_engine.vllm_config.model_config
        self.dtypes[role] = str(model.dtype).removeprefix("torch.")
        try:
            yield llm
        finally:
            close_engine(llm, guard)
            del llm
            gc.collect()

    def _compare_vocabularies(self) -> SharedVocabulary:
        sides = self._comparison.base, self._comparison.finetuned
        shared = shared_vocabulary(
            *(side.tokenizer for side in sides), *(_vocabulary_size(side) for side in sides)
        )
        if shared.left_out > _MOST_LEFT_OUT:
            raise SettingsError(
                f"{shared.left_out} of the fine-tune's tokens have no counterpart in the base; "
                f"with vLLM at most {_MOST_LEFT_OUT} can be left out exactly. Measure with "
                "--backend hf."
            )
        return shared


def _vocabulary_size(side: Side) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(side.folder).get_text_config().vocab_size)


def _largest(entries: Mapping[int, Any], shared: set[int]) -> dict[int, float]:
    """Return the largest of vLLM's entries among the shared tokens; of equal ones the lowest id."""
    held = [(-entry.logprob, token) for token, entry in entries.items() if token in shared]
    return {token: -value for value, token in sorted(held)[:TOP]}


def _generate(llm: Any, prompts: Sequence[list[int]], parameters: list[Any], side: Side) -> Any:
    from vllm.exceptions import VLLMValidationError
    from vllm.lora.request import LoRARequest

    given = [{"prompt_token_ids": tokens} for tokens in prompts]
    lora = LoRARequest("adapter", 1, str(side.adapter.folder)) if side.adapter else None
    try:
        return llm.generate(given, parameters, use_tqdm=False, lora_request=lora)
    except VLLMValidationError as error:
        raise SettingsError(
            f"vLLM refuses a prompt of '{side.name}': {error} Raise max_model_len."
        ) from error
