"""The transformers sampler: draws completions and computes every distinct prefix once.

Most of the samples of one prompt share most of their tokens when the model knows the fact.
Samples that have drawn the same tokens so far are one node of the prefix tree and one row
of the batch; the key-value cache is gathered along the batch as the tree branches.

Sample j takes its token at step t by inverse CDF from a uniform number that is a pure
function of (request seed, j, t). The law is that of n independent samples, and sample j's
text is a function of prompt and seed: merging, batches and restarts do not change it, up to
the rounding of the model's own arithmetic. Prompts of one batch have the same number of
tokens, so that nothing is padded and every architecture works.

Shapes: P prompts, S = P * n samples, N nodes (rows of the batch), V vocabulary, T steps.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from sftknow_eval.artifacts import installed_versions
from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.mastery.draws import IntArray, draw, uniforms
from sftknow_eval.mastery.hf_model import (
    affordable_rows,
    check_device,
    end_ids,
    load_model,
    load_tokenizer,
    parallel_batches,
)
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.sampling import Request
from sftknow_eval.models import locate_model

logger = logging.getLogger(__name__)

Batch = list[tuple[Request, list[int]]]

# From this many rows on, the CPU's float32 kernels were found to give each row the same bits
# whatever the number of rows; smaller batches are filled up with copies of their last row.
_CPU_ROWS = 16


@dataclass(frozen=True, slots=True)
class Sampled:
    """The completions of a batch, with the rows computed and the tokens drawn for them."""

    texts: list[list[str]]
    rows: int
    tokens: int


class HfSampler:
    """Draws completions with a transformers model on the CPU or a GPU.

    Args:
        model: local folder or hub id.
        n_samples: completions of each prompt.
        temperature: above 0.
        max_tokens: the most new tokens of a completion.
        dtype: as lm-eval's `hf` model names it: `auto`, `float32`, `bfloat16`, ...
        device: `cpu`, `cuda`, `cuda:1`, ...; the GPU when there is one by default.
        revision: branch, tag or commit of a hub id.
        batch_size: the most rows computed at once; `auto` goes by the memory there is.
        window: how many requests are read ahead and grouped by length.
        trust_remote_code: let the hub's own model code run.
        merge: compute equal prefixes once. Off is plain sampling, for comparison; the
            completions are the same.

    Attributes:
        forward_rows: rows of batches computed so far: one for each distinct prefix.
        drawn_tokens: tokens of all completions so far, shared ones counted for each.

    Raises:
        ModelError: unknown model, unreadable weights, no tokenizer.
        SettingsError: a setting that cannot be.
    """

    # Where texts run on after the answer, as real models' do, ending there spares most of the
    # tree; in the mini-world, whose texts end by themselves, the checks cost 4 to 8% of time.
    answer_stop_pays: ClassVar[bool] = True

    def __init__(
        self,
        model: str | Path,
        *,
        n_samples: int,
        temperature: float,
        max_tokens: int,
        dtype: str = "auto",
        device: str | None = None,
        revision: str | None = None,
        batch_size: int | str = "auto",
        window: int = 8192,
        trust_remote_code: bool = False,
        merge: bool = True,
    ) -> None:
        if temperature <= 0:
            raise SettingsError(f"The sampling temperature must be above 0, found {temperature}.")
        if min(n_samples, max_tokens, window) < 1:
            raise SettingsError(
                "n_samples, max_tokens and window must be at least 1, found "
                f"{n_samples}, {max_tokens} and {window}."
            )
        self.n_samples = n_samples
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.window = window
        self.merge = merge
        self.forward_rows = 0
        self.drawn_tokens = 0
        self._batch_size = None if batch_size == "auto" else max(1, int(batch_size))
        self._device = check_device(device)
        self._name, self._revision = str(model), revision
        folder = locate_model(str(model), revision)
        self._tokenizer = load_tokenizer(folder, self._name, trust_remote_code)
        self._model = load_model(folder, self._name, dtype, trust_remote_code).to(self._device)
        self._stop_ids = end_ids(self._model, self._tokenizer)
        known = inspect.signature(self._model.forward).parameters
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cached = "past_key_values" in known

    def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
        """Yield (request index, its completions), a window of requests after the other."""
        source = iter(requests)
        with parallel_batches(self._model) as run:
            while window := list(itertools.islice(source, self.window)):
                for batch, done in run(self._sample_or_split, self._batches(window)):
                    self.forward_rows += done.rows
                    self.drawn_tokens += done.tokens
                    yield from zip((r.index for r, _ in batch), done.texts, strict=True)

    def describe(self) -> dict[str, Any]:
        """Return the engine, its versions and the arguments that shape its numbers."""
        return {
            "engine": "transformers",
            "versions": installed_versions("transformers", "torch"),
            "device": self._device.type,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "revision": self._revision,
            "batch_size": self._batch_size or "auto",
            "sampler": "inverse CDF, splitmix64(seed + sample, step)",
        }

    def close(self) -> None:
        """Release the model."""
        del self._model
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(self, window: list[Request]) -> list[Batch]:
        """Cut a window into batches of prompts that have the same number of tokens."""
        by_length: dict[int, Batch] = defaultdict(list)
        encoded = self._tokenizer([request.prompt for request in window])["input_ids"]
        for request, ids in zip(window, encoded, strict=True):
            by_length[len(ids)].append((request, ids))
        batches = []
        for length, group in sorted(by_length.items()):
            self._check_length(length)
            rows = self._batch_size or affordable_rows(self._model, length + self.max_tokens)
            size = max(1, rows // self.n_samples)
            batches += [group[i : i + size] for i in range(0, len(group), size)]
        return batches

    def _check_length(self, length: int) -> None:
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if limit and length + self.max_tokens > limit:
            raise SettingsError(
                f"A prompt of {length} tokens and {self.max_tokens} new ones exceed the {limit} "
                f"positions of {self._name}. Shorten the templates or lower the new tokens."
            )

    def _sample_or_split(self, batch: Batch) -> Sampled:
        """Sample a batch, in halves when the GPU's memory is short."""
        try:
            return self._sample_batch([r for r, _ in batch], [ids for _, ids in batch])
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"{self._name} does not fit into the memory of {self._device} with one "
                    "prompt. Use a smaller dtype or another device."
                ) from error
        half = len(batch) // 2
        logger.warning("GPU memory is short: going on with %d prompts at once", half)
        self._batch_size = max(1, half) * self.n_samples
        torch.cuda.empty_cache()
        one, two = self._sample_or_split(batch[:half]), self._sample_or_split(batch[half:])
        return Sampled(one.texts + two.texts, one.rows + two.rows, one.tokens + two.tokens)

    @torch.inference_mode()
    def _sample_batch(self, requests: list[Request], prompts: list[list[int]]) -> Sampled:
        """Return the completions of a batch of prompts."""
        n, seeds = self.n_samples, [request.seed for request in requests]
        prompts_PL = np.array(prompts, dtype=np.int64)
        drawn_ST = np.full((len(requests) * n, self.max_tokens), -1, dtype=np.int64)
        alive = np.arange(len(drawn_ST))
        owner_S = alive // n
        node = owner_S if self.merge else alive
        logits_NV, cache = self._forward(prompts_PL if self.merge else prompts_PL[owner_S], None)
        rows = len(logits_NV)
        for step in range(self.max_tokens):
            u = uniforms(seeds, n, step)[alive]
            token = draw(logits_NV, node, u, self.temperature)
            drawn_ST[alive, step] = token
            # Node of the tree: same parent, same token. Its first sample speaks for it.
            branch = node * logits_NV.shape[1] + token if self.merge else alive
            _, first, child = np.unique(branch, return_index=True, return_inverse=True)
            ended = np.isin(token[first], self._stop_ids)
            stops = [requests[owner_S[i]].stops for i in alive[first]]
            self._end_answered(drawn_ST[alive[first], : step + 1], stops, ended)
            if step + 1 == self.max_tokens or ended.all():
                break
            speaks, stays = first[~ended], ~ended[child]
            parents, tokens, histories = node[speaks], token[speaks], alive[speaks]
            node = (np.cumsum(~ended) - 1)[child[stays]]
            alive = alive[stays]
            if cache is None:
                tails = drawn_ST[histories, : step + 1]
                tokens_NL = np.concatenate([prompts_PL[owner_S[histories]], tails], axis=1)
            else:
                self._gather(cache, parents)
                tokens_NL = tokens[:, None]
            logits_NV, cache = self._forward(tokens_NL, cache)
            rows += len(logits_NV)
        texts = self._decode_rows(drawn_ST)
        lists = [texts[i : i + n] for i in range(0, len(texts), n)]
        return Sampled(lists, rows, int((drawn_ST >= 0).sum()))

    def _forward(self, tokens_NL: IntArray, cache: Any) -> tuple[torch.Tensor, Any]:
        """Return the next token's logits, (N, V), and the cache, None where there is none."""
        ids = torch.from_numpy(self._fill_up(tokens_NL)).to(self._device)
        kept = {"past_key_values": cache, "use_cache": True} if self._cached else {}
        output = self._model(input_ids=ids, **kept, **self._keep)
        cache = output.past_key_values if self._cached else None
        return output.logits[: len(tokens_NL), -1], cache

    def _fill_up(self, rows: IntArray) -> IntArray:
        missing = _CPU_ROWS - len(rows) if self._device.type == "cpu" else 0
        return (
            np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows
        )

    def _gather(self, cache: Any, parents: IntArray) -> None:
        """Let row i of the cache be what row parents[i] was."""
        rows = self._fill_up(parents)
        cache.reorder_cache(torch.from_numpy(rows).to(self._device))

    def _end_answered(
        self, rows: IntArray, stops: list[tuple[str, ...]], ended: npt.NDArray[np.bool_]
    ) -> None:
        """Mark in `ended` the nodes whose text contains one of their stop texts."""
        open_nodes = [i for i, texts in enumerate(stops) if texts and not ended[i]]
        texts = self._decode([rows[i].tolist() for i in open_nodes])
        for i, text in zip(open_nodes, texts, strict=True):
            ended[i] = contains(text, stops[i])

    def _decode_rows(self, drawn_ST: IntArray) -> list[str]:
        """Decode every sample, equal ones once."""
        places: dict[bytes, int] = {}
        where = [places.setdefault(row.tobytes(), len(places)) for row in drawn_ST]
        unique = [np.frombuffer(row, dtype=np.int64) for row in places]
        texts = self._decode([row[row >= 0].tolist() for row in unique])
        return [texts[i] for i in where]

    def _decode(self, rows: list[list[int]]) -> list[str]:
        if not rows:
            return []
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            texts = backend.decode_batch(rows, skip_special_tokens=True)
        else:
            texts = self._tokenizer.batch_decode(
                rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        # A completion may end in the middle of a character; what is not whole is not shown,
        # so that a completion that ended early is a prefix of the one that went on.
        return [text.rstrip("\ufffd") for text in texts]
