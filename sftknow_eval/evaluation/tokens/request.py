"""What token drift is measured on: a pair of models, and facts that each is asked in its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.adapters import Adapter, find_adapter
from sftknow_eval.evaluation.documents import Document, TaskData, load_task_data
from sftknow_eval.evaluation.prompts import Style, check_style
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.backends import Backend
from sftknow_eval.mastery.hf_model import load_tokenizer
from sftknow_eval.models import locate_model, weight_fingerprint

# At most so many tokens of the base's completion are read for whether the answer comes first.
NEW_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDriftRequest:
    """Which models are compared on which facts.

    Attributes:
        base, finetuned: local folder or hub id; the fine-tune may be an adapter.
        base_revision, finetuned_revision: of hub ids.
        metadata: what selects the facts, as for the tasks' `--metadata`.
        style: prompt style of the fine-tune; None to take the training record's, else `chat`
            where its tokenizer has a chat template, else `plain`.
        engine_args: of the backend: dtype, device and trust_remote_code of `hf`, anything that
            vLLM's engine takes.
        batch_size: prompts in a batch of `hf`.
        limit: at most this many facts of each domain and stratum.
        full: measure over the whole vocabulary, too (`hf` only).
    """

    base: str
    finetuned: str
    base_revision: str | None = None
    finetuned_revision: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    style: Style | None = None
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 256
    limit: int | None = None
    full: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}; it must be at least 1.")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models.

    Attributes:
        folder: of its weights; of an adapter, those of its base.
        adapter: laid over them, if any.
    """

    name: str
    folder: Path
    tokenizer: Any
    adapter: Adapter | None = None

    def describe(self) -> dict[str, Any]:
        """Return what goes into the results."""
        weights = self.adapter.folder if self.adapter else self.folder
        described = {"model": self.name, "fingerprint": weight_fingerprint(weights)}
        return described | ({"adapter": self.adapter.describe()} if self.adapter else {})


@dataclass(frozen=True, slots=True)
class AskedFact:
    """A fact, and the tokens of the prompts that the two models get."""

    document: Document
    base_tokens: list[int]
    finetuned_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The pair of models, the facts and the record of both."""

    base: Side
    finetuned: Side
    facts: list[AskedFact]
    record: dict[str, Any]


def prepare(request: TokenDriftRequest) -> Comparison:
    """Return models and facts of a request; nothing is loaded but tokenizers.

    Raises:
        ModelError: a model cannot be found, or has no tokenizer.
        OtherBase: the adapter is of another base.
        DataError, TemplateError, MasteryError, SettingsError: no prompts can be made.
    """
    base, finetuned = _sides(request)
    style, style_from = _style(request, finetuned)
    known = {"base": request.base, "pretrained": request.finetuned, **request.metadata}
    data = read_settings(known).data
    known |= {"data": data} if data else {}
    asked = load_task_data(read_settings({**known, "style": style}))
    completed = load_task_data(
        read_settings({**known, "pretrained": request.base, "style": "completion"})
    )
    pairs = _pairs(completed, asked, request.limit)
    if not pairs:
        raise SettingsError("No fact is selected to measure token drift on.")
    base_tokens = _tokens(base.tokenizer, [ours["prompt"] for ours, _ in pairs], chat=False)
    prompts = [theirs["prompt"] for _, theirs in pairs]
    finetuned_tokens = _tokens(finetuned.tokenizer, prompts, chat=style == "chat")
    facts = [
        AskedFact(ours, one, other)
        for (ours, _), one, other in zip(pairs, base_tokens, finetuned_tokens, strict=True)
    ]
    record = {
        **{name: value for name, value in completed.record.items() if name != "style"},
        "style": style,
        "style_from": style_from,
        "limit": request.limit,
    }
    return Comparison(base, finetuned, facts, record)


def _sides(request: TokenDriftRequest) -> tuple[Side, Side]:
    trust = bool(request.engine_args.get("trust_remote_code", False))
    base_folder = locate_model(request.base, request.base_revision)
    base = Side(request.base, base_folder, load_tokenizer(base_folder, request.base, trust))
    adapter = find_adapter(
        request.finetuned, revision=request.finetuned_revision, base=str(base_folder)
    )
    folder = base_folder if adapter else locate_model(request.finetuned, request.finetuned_revision)
    own = adapter.tokenizer if adapter else folder
    tokenizer = load_tokenizer(own, request.finetuned, trust) if own != base_folder else None
    return base, Side(request.finetuned, folder, tokenizer or base.tokenizer, adapter)


def _style(request: TokenDriftRequest, finetuned: Side) -> tuple[Style, str]:
    has_template = bool(finetuned.tokenizer.chat_template)
    if request.style == "chat" and not has_template:
        raise SettingsError(
            f"The tokenizer of '{request.finetuned}' has no chat template, which the style 'chat' "
            "needs. Ask with --style plain, or paper for a model trained on that prompt."
        )
    if request.style == "completion":
        raise SettingsError(
            "The fine-tune is asked the question; the style 'completion' is the base's. Ask with "
            "--style paper, plain or chat."
        )
    if request.style:
        return request.style, "asked for"
    if recorded := read_settings({"pretrained": request.finetuned}).style:
        return check_style(recorded), "training record"
    if has_template:
        return "chat", "chat template"
    return "plain", "no training record, no chat template"


def _pairs(
    completed: TaskData, asked: TaskData, limit: int | None
) -> list[tuple[Document, Document]]:
    """Return each fact as the base and as the fine-tune is asked it."""
    pairs = []
    for place, leaf in completed.leaves.items():
        theirs = {document["id"]: document for document in asked.leaves[place]}
        pairs += [(ours, theirs[ours["id"]]) for ours in leaf[:limit]]
    return pairs


def _tokens(tokenizer: Any, prompts: list[str], *, chat: bool) -> list[list[int]]:
    """Return the tokens of each prompt, with exactly one begin token where there is one."""
    if chat:
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts
        ]
    begins = bool(tokenizer.bos_token) and prompts[0].startswith(tokenizer.bos_token)
    encoded: list[list[int]] = tokenizer(prompts, add_special_tokens=not begins)["input_ids"]
    return encoded
