"""PEFT adapters as fine-tunes: their base is looked up and checked, and both go to lm-eval.

lm-eval's `hf` model loads any adapter of PEFT over its base (`peft=`); its `vllm` model loads LoRA
(`lora_local_path=`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import DataError, ModelError, OtherBase, SettingsError
from sftknow_eval.mastery.backends import Backend
from sftknow_eval.models import ADAPTER_CONFIG, is_adapter, locate_model, weight_fingerprint
from sftknow_eval.record import read_record

# The ranks that vLLM reserves memory for.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter and the base it belongs to.

    Attributes:
        folder: of the adapter.
        kind: PEFT's type, such as `LORA`.
        rank: of a LoRA; None for other kinds.
        base: folder or hub id of the base, with its `base_revision`.
        base_from: who says so: `asked for`, `training record` or the adapter's configuration.
        base_fingerprint: of the base's weights.
        tokenizer: folder of the tokenizer: the adapter's where it has one, else the base's.
    """

    folder: Path
    kind: str
    rank: int | None
    base: str
    base_revision: str | None
    base_from: str
    base_fingerprint: str
    tokenizer: Path

    def model_args(self, backend: Backend) -> dict[str, Any]:
        """Return the arguments of lm-eval's model class that load base and adapter.

        Raises:
            SettingsError: vLLM is asked for something other than a LoRA.
        """
        arguments: dict[str, Any] = {"pretrained": self.base, "tokenizer": str(self.tokenizer)}
        if self.base_revision:
            arguments["revision"] = self.base_revision
        if backend == "hf":
            return arguments | {"peft": str(self.folder)}
        ranks = [rank for rank in _VLLM_RANKS if self.rank is not None and rank >= self.rank]
        if self.kind != "LORA" or not ranks:
            raise SettingsError(
                f"{self.folder} is an adapter of the kind {self.kind}"
                f"{f' and rank {self.rank}' if self.rank else ''}; vLLM loads LoRA up to rank "
                f"{_VLLM_RANKS[-1]}. Evaluate it with --backend hf, or merge it with its base."
            )
        return arguments | {"lora_local_path": str(self.folder), "max_lora_rank": ranks[0]}

    def describe(self) -> dict[str, Any]:
        """Return what goes into the results beside the adapter's own weights."""
        return {
            "kind": self.kind,
            "base": self.base,
            "base_from": self.base_from,
            "base_fingerprint": self.base_fingerprint,
        }


def find_adapter(
    finetuned: str, *, revision: str | None = None, base: str | None = None
) -> Adapter | None:
    """Return the adapter that a fine-tuned model is; None where it is a whole model.

    Args:
        finetuned: folder or hub id.
        revision: of the hub id.
        base: as named by the user; None to take what the adapter says.

    Raises:
        ModelError: the adapter or its base cannot be found or read.
        OtherBase: the adapter was made from another base.
    """
    folder = locate_model(finetuned, revision)
    if not is_adapter(folder):
        return None
    settings = _settings(folder, finetuned)
    stated, stated_from, expected = _stated(folder, settings)
    if base is None and stated is None:
        raise ModelError(
            f"The adapter '{finetuned}' does not say which base it belongs to: neither its "
            f"{ADAPTER_CONFIG} (base_model_name_or_path) nor a training record does. Name the base "
            "with --base."
        )
    own_revision = settings.get("revision") if base in (None, stated) else None
    name, origin = (base, "asked for") if base else (stated or "", stated_from)
    fingerprint = _checked(finetuned, name, own_revision, stated, expected)
    rank = settings.get("r")
    return Adapter(
        folder=folder,
        kind=str(settings.get("peft_type")),
        rank=max([rank, *(settings.get("rank_pattern") or {}).values()]) if rank else None,
        base=name,
        base_revision=own_revision,
        base_from=origin,
        base_fingerprint=fingerprint,
        tokenizer=folder if _has_tokenizer(folder) else locate_model(name, own_revision),
    )


def _settings(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        settings = read_json(folder / ADAPTER_CONFIG)
    except DataError as error:
        raise ModelError(f"The adapter '{name}' cannot be read: {error}") from error
    if not isinstance(settings, dict) or not settings.get("peft_type"):
        raise ModelError(
            f"{folder / ADAPTER_CONFIG} is not the configuration of a PEFT adapter: it has no "
            "'peft_type'. Save the adapter again with save_pretrained."
        )
    return settings


def _stated(folder: Path, settings: Mapping[str, Any]) -> tuple[str | None, str, str | None]:
    """Return the base as the adapter states it, where, and its fingerprint if that is stated."""
    record = read_record(folder)
    if record:
        return record.base, "training record", record.base_fingerprint
    return settings.get("base_model_name_or_path") or None, ADAPTER_CONFIG, None


def _checked(
    adapter: str, base: str, revision: str | None, stated: str | None, expected: str | None
) -> str:
    """Return the fingerprint of the base, made sure of as far as the adapter's statement goes."""
    try:
        fingerprint = weight_fingerprint(locate_model(base, revision))
    except ModelError as error:
        raise ModelError(
            f"The base of the adapter '{adapter}' is '{base}', and that is not here: {error} Name "
            "another copy of it with --base."
        ) from error
    if expected is None and stated not in (None, base):
        expected = _fingerprint_here(str(stated))
    if expected not in (None, fingerprint):
        raise OtherBase(
            f"The adapter '{adapter}' was made from '{stated}' with the weight fingerprint "
            f"{str(expected)[:16]}; the base '{base}' has {fingerprint[:16]}. Name the adapter's "
            "own base with --base."
        )
    return fingerprint


def _fingerprint_here(name: str) -> str | None:
    # Only what is on this machine: a statement is not worth a download.
    if not Path(name).is_dir():
        return None
    try:
        return weight_fingerprint(Path(name))
    except ModelError:
        return None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
