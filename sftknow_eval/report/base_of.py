"""Which base a fine-tune belongs to: as given, or as the fine-tune itself states; and a check.

The base is always said with where it comes from. What a fine-tune states about its base is
compared with the base given, by weights where these are here, and by how far the weights lie
apart where nothing is stated.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import CheckpointError, ModelError, OtherBase, SettingsError
from sftknow_eval.models import ADAPTER_CONFIG, is_adapter, locate_model, weight_fingerprint
from sftknow_eval.record import read_record

if TYPE_CHECKING:
    from sftknow_eval.restoration.checkpoint import ModelWeights

# Fine-tuning moves weights by a few percent; the median of unrelated models is above 100.
UNRELATED = 0.75


@dataclass(frozen=True, slots=True)
class Statement:
    """What a fine-tune says about its base.

    Attributes:
        name: folder or hub id.
        origin: where it says so.
        fingerprint: of the base's weights, if it is stated too.
    """

    name: str
    origin: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """The base of a fine-tune.

    Attributes:
        name: folder or hub id.
        origin: where the name comes from.
        fingerprint: of its weights.
        check: in words, how it was made sure that the fine-tune belongs to it.
    """

    name: str
    origin: str
    fingerprint: str
    check: str


def statements(folder: Path) -> list[Statement]:
    """Return what a model folder states about its base, the surest first."""
    found = []
    if record := read_record(folder):
        found.append(Statement(record.base, "training record", record.base_fingerprint))
    if (folder / ADAPTER_CONFIG).is_file():
        name = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        if isinstance(name, str) and name:
            found.append(Statement(name, ADAPTER_CONFIG))
    found += [Statement(name, "model card") for name in _of_card(folder / "README.md")]
    return found


def _of_card(path: Path) -> list[str]:
    """Return `base_model` of a model card's front matter; a merge has several."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    parts = text.split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return []
    with contextlib.suppress(yaml.YAMLError):
        front: Any = yaml.safe_load(parts[1])
        named = front.get("base_model") if isinstance(front, dict) else None
        names = named if isinstance(named, list) else [named]
        return [name for name in names if isinstance(name, str) and name]
    return []


def base_of(given: str | None, finetuned: str) -> Base:
    """Return the base of a fine-tune, checked as far as it can be.

    Args:
        given: as named by the user; None to take what the fine-tune states.
        finetuned: folder or hub id of a model or adapter.

    Raises:
        OtherBase: the fine-tune was made from another base.
        SettingsError: no base is given and none, or more than one, is stated.
        ModelError: one of the two cannot be found.
    """
    folder = locate_model(finetuned)
    stated = statements(folder)
    name, origin = (given, "as given") if given else _stated_name(finetuned, stated)
    found = locate_model(name)
    if is_adapter(found):
        raise ModelError(f"The base '{name}' is an adapter. Give the whole model it belongs to.")
    fingerprint = weight_fingerprint(found)
    for statement in stated:
        if how := _agrees(statement, name, fingerprint, finetuned):
            return Base(name, origin, fingerprint, how)
    return Base(name, origin, fingerprint, _by_weights(found, folder, name, finetuned))


def _stated_name(finetuned: str, stated: list[Statement]) -> tuple[str, str]:
    names = list(dict.fromkeys(statement.name for statement in stated))
    usable = [s for s in stated if s.origin != "model card" or len(names) == 1]
    if not usable:
        what = f"its model card names {', '.join(names)}" if names else "it states none"
        raise SettingsError(
            f"The base of '{finetuned}' is not given, and {what}. Name the base before the "
            f"fine-tune: sftknow report BASE {finetuned}"
        )
    return usable[0].name, usable[0].origin


def _agrees(statement: Statement, name: str, fingerprint: str, finetuned: str) -> str | None:
    """Return how the statement confirms the base; None where it cannot be compared."""
    wanted = statement.fingerprint
    if wanted is None and statement.name == name:
        return f"the {statement.origin} names it"
    if wanted is None:
        wanted = _local_fingerprint(statement.name)
    if wanted == fingerprint:
        return f"its weights are those that the {statement.origin} means"
    if wanted is None and statement.origin != ADAPTER_CONFIG:
        return None
    if wanted is None and Path(statement.name).name.lower() == Path(name).name.lower():
        return f"the {statement.origin} names '{statement.name}', which is not here to compare"
    of = f" with the weight fingerprint {wanted[:16]}" if wanted else ""
    raise OtherBase(
        f"'{finetuned}' was made from another base: its {statement.origin} names "
        f"'{statement.name}'{of}, but the base given, '{name}', has {fingerprint[:16]}. Give the "
        "base that the fine-tune began with."
    )


def _local_fingerprint(name: str) -> str | None:
    """Return the fingerprint of a model that is on this machine already."""
    folder = Path(name)
    if not folder.is_dir():
        if name.count("/") != 1 or name.startswith((".", "/")):
            return None
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:  # the hub's client raises errors of many kinds
            return None
    try:
        return weight_fingerprint(locate_model(str(folder)))
    except (ModelError, CheckpointError):
        return None


def _by_weights(base: Path, finetuned: Path, name: str, finetuned_name: str) -> str:
    """Compare the weights of one layer; unrelated models lie far apart."""
    from sftknow_eval.drift.change import measure
    from sftknow_eval.drift.report import report
    from sftknow_eval.drift.spread import QUANTILES
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.run import ModelName, opened

    with opened(ModelName(str(base)), ModelName(str(finetuned))) as models:
        pair = match(*models, _one_layer(models[1]))
        change = measure(*models, pair.tensors, [50.0], statistics=True)
    median = report(change).whole.quantiles[QUANTILES.index(0.5)]
    if median > UNRELATED:
        raise OtherBase(
            f"'{finetuned_name}' is no fine-tune of '{name}': half of the weights compared differ "
            f"by more than {median:.0%} of their value, as those of unrelated models do. Give the "
            "base that the fine-tune began with."
        )
    return f"the weights lie close together (median relative change {median:.2g})"


def _one_layer(model: ModelWeights) -> Any:
    from sftknow_eval.restoration.regions import Region, part_of

    layers = {part_of(name, tensor.shape).layer for name, tensor in model.tensors.items()}
    known = sorted(layer for layer in layers if layer is not None)
    return Region(layers=(known[len(known) // 2],)) if known else Region()
