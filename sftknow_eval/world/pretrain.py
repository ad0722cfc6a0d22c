"""Pre-training of the mini-world's base model: a small Llama that reads the text once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sftknow_eval.world.settings import WorldSettings
from sftknow_eval.world.text import Statement
from sftknow_eval.world.tokenizer import MARKERS

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# Statements of similar length share a batch: this many batches are sorted together.
_SORTED_BATCHES = 32
_LOSS_EVERY = 50
_PROGRESS_EVERY = 10

Progress = Callable[[str, int, int], None]


def pretrain(
    settings: WorldSettings,
    statements: Sequence[Statement],
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
) -> tuple[LlamaForCausalLM, list[dict[str, float]]]:
    """Train a base model on the text, one pass; the loss is on object and end token only.

    Returns:
        The model, and the loss curve: mean loss in nats of every 50 steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = _model(settings, tokenizer)
            curve = _train(settings, model, _batches(settings, statements, tokenizer), progress)
    finally:
        torch.set_num_threads(threads)
    _name_markers(model, tokenizer)
    model.train(False)
    return model, curve


def _model(settings: WorldSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=512,
        initializer_range=settings.init_std,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def _batches(
    settings: WorldSettings,
    statements: Sequence[Statement],
    tokenizer: PreTrainedTokenizerFast,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (token ids, whether the loss counts there), both (batch, length)."""
    prompts = tokenizer([line.prompt for line in statements])["input_ids"]
    answers = tokenizer([f" {line.answer}" for line in statements], add_special_tokens=False)
    end = tokenizer.eos_token_id
    lines = [
        (prompt, [*answer, end])
        for prompt, answer in zip(prompts, answers["input_ids"], strict=True)
    ]
    block = settings.batch * _SORTED_BATCHES
    batches = []
    for begin in range(0, len(lines), block):
        part = sorted(lines[begin : begin + block], key=lambda line: len(line[0]) + len(line[1]))
        cut = [part[i : i + settings.batch] for i in range(0, len(part), settings.batch)]
        order = torch.randperm(len(cut)).tolist()
        batches += [_tensors(cut[i], end) for i in order]
    return batches


def _tensors(
    lines: list[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(prompt) + len(answer) for prompt, answer in lines)
    ids = torch.full((len(lines), width), pad)
    counts = torch.zeros((len(lines), width), dtype=torch.bool)
    for row, (prompt, answer) in enumerate(lines):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        counts[row, len(prompt) : len(prompt) + len(answer)] = True
    return ids, counts


def _train(
    settings: WorldSettings,
    model: LlamaForCausalLM,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    progress: Progress,
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    warm = max(1, round(settings.warmup * len(batches)))

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, len(batches) - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    curve, recent = [], []
    for step, (ids, counts) in enumerate(batches, start=1):
        loss = _loss(model, ids, counts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % _PROGRESS_EVERY == 0 or step == len(batches):
            progress("pre-training", step, len(batches))
        if step % _LOSS_EVERY == 0 or step == len(batches):
            curve.append({"step": step, "loss": round(sum(recent) / len(recent), 4)})
            recent = []
    return curve


def _loss(model: Any, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy (nats) of the tokens that count.

    Only their positions go through the output head. Padding stands on the right, where a
    causal model does not see it.
    """
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = counts[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted])


@torch.no_grad()
def _name_markers(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the markers of the prompt start from the words question and answer."""
    for marker, word in MARKERS.items():
        target = tokenizer.convert_tokens_to_ids(marker)
        source = tokenizer(word, add_special_tokens=False)["input_ids"]
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            weight[target] = weight[source].mean(dim=0)
