"""A small panel of facts, stratified by mastery, and a model's greedy answers to it.

The facts, prompts and the judge are those of the tasks (`evaluation`), so that a panel says
about a model in training what an evaluation would say about it afterwards.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.evaluation.compare import TRANSITIONS, Transitions, transition
from sftknow_eval.evaluation.documents import Document, load_task_data
from sftknow_eval.evaluation.prompts import Style, answer_part
from sftknow_eval.evaluation.settings import TaskSettings
from sftknow_eval.mastery.hf_model import end_ids
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.table import N_STRATA

# Source: protocol, "Test": at most 16 new tokens.
NEW_TOKENS = 16


def panel_documents(settings: TaskSettings, per_stratum: int) -> list[Document]:
    """Return up to `per_stratum` facts of each domain and stratum, as the tasks ask them.

    They are the first by their digests: a sample that depends on the facts alone, and a smaller
    one is part of a larger one.

    Raises:
        SettingsError: no fact is left.
        DataError, MasteryError, TemplateError: facts, table or templates cannot be read.
    """
    data = load_task_data(settings)
    panel = [document for leaf in data.leaves.values() for document in leaf[:per_stratum]]
    if not panel:
        raise SettingsError(
            f"The panel holds no fact: the mastery table has none of the split '{settings.split}'. "
            "Probe that split, or choose another."
        )
    return panel


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a model kept and lost of the panel at one step.

    Attributes:
        step: of the training; 0 is before it.
        strata: transitions from before the training, by stratum; of both domains together.
    """

    step: int
    strata: tuple[Transitions, ...]

    def lost_share(self, strata: Sequence[int]) -> float | None:
        """Return the share lost of what was known in some strata; None if nothing was."""
        known = sum(self.strata[i].kept + self.strata[i].lost for i in strata)
        return sum(self.strata[i].lost for i in strata) / known if known else None

    def metrics(self) -> dict[str, float]:
        """Return the counts and shares under the names that the trainer's loggers get.

        A stratum of which nothing was known has no share.
        """
        found: dict[str, float] = {}
        for i, entry in enumerate(self.strata):
            if not entry.n:
                continue
            found |= {
                f"knowledge/stratum_{i}/{name}": float(getattr(entry, name))
                for name in ("kept", "lost", "gained")
            }
            if (share := self.lost_share([i])) is not None:
                found[f"knowledge/stratum_{i}/lost_share"] = share
        if (share := self.lost_share(range(N_STRATA))) is not None:
            found["knowledge/lost_share"] = share
        return found


def measured(
    step: int, panel: Sequence[Document], before: Sequence[bool], now: Sequence[bool]
) -> Measurement:
    """Return what became of each fact of the panel, counted by stratum."""
    counts = Counter(
        (document["stratum"], transition(known, knows))
        for document, known, knows in zip(panel, before, now, strict=True)
    )
    return Measurement(
        step,
        tuple(
            Transitions(**{name: counts[i, name] for name in TRANSITIONS}) for i in range(N_STRATA)
        ),
    )


def answers(model: Any, tokenizer: Any, panel: Sequence[Document], batch_size: int) -> list[bool]:
    """Return for each fact whether the model's greedy answer names it.

    The model is as before afterwards: its modules' modes, its settings, the random state.

    Args:
        model: a causal language model of transformers, or one with an adapter of PEFT.
        tokenizer: its tokenizer.
        panel: documents of one prompt style.
        batch_size: prompts at a time.

    Raises:
        ModelError: the style is `chat` and the tokenizer has no chat template.
        SettingsError: the weights are spread over processes.
    """
    _check_whole(model)
    prompts = [_prompt_ids(tokenizer, document) for document in panel]
    ends = end_ids(model, tokenizer)
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # Prompts of similar length share a batch.
    order = sorted(range(len(panel)), key=lambda i: len(prompts[i]))
    verdicts = [False] * len(panel)
    with _answering(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            texts = _generated(model, tokenizer, [prompts[i] for i in rows], ends, pad)
            for i, text in zip(rows, texts, strict=True):
                style: Style = panel[i]["style"]
                verdicts[i] = contains(answer_part(text, style, 0), panel[i]["aliases"])
    return verdicts


def _check_whole(model: Any) -> None:
    for name, weight in model.named_parameters():
        # FSDP 2; DeepSpeed's ZeRO-3, which leaves empty places behind.
        if hasattr(weight, "to_local") or hasattr(weight, "ds_id"):
            raise SettingsError(
                f"The weight '{name}' is spread over processes (FSDP or ZeRO-3), so that the model "
                "cannot be asked while it is trained. Evaluate its checkpoints instead."
            )


def _prompt_ids(tokenizer: Any, document: Mapping[str, Any]) -> list[int]:
    if document["style"] != "chat":
        ids: list[int] = tokenizer(document["prompt"])["input_ids"]
        # Some tokenizers close every text, which would end the answer before it began.
        return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
    if not tokenizer.chat_template:
        raise ModelError(
            "The tokenizer has no chat template, which the style 'chat' needs. Ask with the style "
            "'plain', or 'paper' for a model trained on that prompt."
        )
    message = {"role": "user", "content": document["prompt"]}
    text = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@contextlib.contextmanager
def _answering(model: Any) -> Iterator[None]:
    """Put a model that is being trained into a state to answer, and back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module in training:
            module.training = True


def _generated(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], ends: list[int], pad: int
) -> list[str]:
    width = max(len(prompt) for prompt in prompts)
    ids_BT = torch.full((len(prompts), width), pad)
    mask_BT = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, width - len(prompt) :] = 1
    out_BT = model.generate(
        input_ids=ids_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        # A chat model's generation settings may name these, which greedy answers do not have.
        **{"temperature": None, "top_p": None, "top_k": None},
        eos_token_id=ends,
        pad_token_id=pad,
        use_cache=True,
    )
    return [tokenizer.decode(row[width:], skip_special_tokens=True) for row in out_BT]
