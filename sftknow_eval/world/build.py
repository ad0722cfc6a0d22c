"""Building a mini-world: facts, text, tokenizer and base model, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sftknow_eval.artifacts import atomic_folder, installed_versions, read_json, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.world.facts import SPLITS, make_facts, write_data
from sftknow_eval.world.names import Names
from sftknow_eval.world.settings import WorldSettings
from sftknow_eval.world.text import make_text

_RECORD = "world.json"

Progress = Callable[[str, int, int], None]


def build_world(
    out: Path, settings: WorldSettings, progress: Progress | None = None
) -> tuple[Path, bool]:
    """Make a world in the folder `out`, or find it there.

    Args:
        out: the folder; it appears only when the world is complete.
        settings: what the world is made of.
        progress: called with (what, done, total) along the way.

    Returns:
        The folder, and whether it was there already.

    Raises:
        SettingsError: the folder holds something else.
        OutOfSpace: the disk filled up; nothing is left of the world.
    """
    if _finished(out, settings):
        return out, True
    with atomic_folder(out) as partial:
        _make(partial, settings, progress or (lambda what, done, total: None))
    return out, False


def _finished(out: Path, settings: WorldSettings) -> bool:
    """Return whether `out` holds this world; raise when it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / _RECORD).is_file():
        raise SettingsError(
            f"{out} exists and is not a mini-world (it has no {_RECORD}). Give a folder that is "
            "empty or does not exist."
        )
    found, wanted = read_json(out / _RECORD)["settings"], settings.record()
    differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if differing:
        listed = ", ".join(f"{k} {found.get(k)} (asked: {wanted.get(k)})" for k in differing)
        raise SettingsError(
            f"{out} holds a mini-world of other settings: {listed}. Give another folder, or "
            "remove that one."
        )
    return True


def _make(folder: Path, settings: WorldSettings, progress: Progress) -> None:
    from sftknow_eval.world.pretrain import pretrain
    from sftknow_eval.world.tokenizer import train_tokenizer

    progress("facts and text", 0, 1)
    names = Names(settings.seed, settings.alias_share)
    facts = make_facts(settings, names)
    write_data(folder, settings, names, facts)
    statements = make_text(settings, facts, names.aliases)
    progress("facts and text", 1, 1)
    tokenizer = train_tokenizer(statements, settings.vocabulary)
    model, curve = pretrain(settings, statements, tokenizer, progress)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    record = {
        "settings": settings.record(),
        "versions": installed_versions("sftknow-eval", "torch", "transformers", "tokenizers"),
        "facts": {split: sum(fact.split == split for fact in facts) for split in SPLITS},
        "statements": len(statements),
        "parameters": sum(p.numel() for p in model.parameters()),
        "pretraining_loss": curve,
    }
    write_json(folder / _RECORD, record)
