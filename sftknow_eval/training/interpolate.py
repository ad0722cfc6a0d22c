"""Models on the straight line from a base to its fine-tune: (1 - w) * base + w * fine-tune.

Every number of every tensor takes part, norms and embeddings too. All weights of a sweep are
written in one read of the pair, by the reader and writer of restoration: no model is built.

Source: Wortsman et al. 2022, arXiv 2109.01903 (WiSE-FT), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sftknow_eval import __version__
from sftknow_eval.artifacts import locked, read_json, write_json
from sftknow_eval.drift.tensors import HELD_AS, Array, cast
from sftknow_eval.errors import SettingsError
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.restoration.checkpoint import ModelWeights
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.regions import Region
from sftknow_eval.restoration.run import ModelName, Progress, opened, silent
from sftknow_eval.restoration.writer import Job, copy_side_files, unfinished, write_weights

FORMAT = "sftknow-interpolation/1"
RECORD = "interpolation.json"

_DTYPE_OF = {held: name for name, held in HELD_AS.items()}


@dataclass(frozen=True, slots=True)
class Interpolated:
    """One model of the line.

    Attributes:
        weight: percent of the way from the base (0) to the fine-tune (100).
        written: False if it was there already.
    """

    weight: float
    folder: Path
    written: bool


class Interpolator:
    """Writes blocks of one tensor for several weights; the sums are in float32."""

    in_order = False

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = weights

    def block(self, p: Array, s: Array, start: int, out_JN: Array, skip: int = 0) -> None:
        """Write a row for each weight; what is beyond the base's values is the fine-tune's."""
        dtype = _DTYPE_OF[s.dtype]
        common = s[: p.size]
        p_N, s_N = cast(p, "F32"), cast(common, "F32")
        for row, weight in zip(out_JN[:, skip : skip + s.size], self._weights, strict=True):
            row[p.size :] = s[p.size :]
            # Both ends are copied: a sum would lose the sign of a zero.
            if weight in (0, 100):
                row[: p.size] = common if weight else cast(p, dtype)
                continue
            share = np.float32(weight / 100)
            row[: p.size] = cast((np.float32(1) - share) * p_N + share * s_N, dtype)


def interpolate(
    base: str,
    finetuned: str,
    weights: Sequence[float],
    out: Path,
    *,
    revisions: tuple[str | None, str | None] = (None, None),
    progress: Progress = silent,
) -> list[Interpolated]:
    """Write one whole checkpoint for each weight, as `out/weight-K`; finished ones are kept.

    Args:
        base: local folder or hub id.
        finetuned: local folder or hub id, of a model or of a LoRA adapter.
        weights: percent of the way from the base to the fine-tune.
        out: folder of the checkpoints.
        revisions: of the two, for hub ids.
        progress: called with (task, numbers done since the last call, numbers in all).

    Raises:
        SettingsError: an impossible weight, or a folder holds something else.
        CheckpointError: the two are not of one architecture, or a file cannot be read.
        OutOfSpace: the disk filled up.
    """
    _check(weights)
    wanted = sorted(set(weights))
    sources = [
        {"name": name, "revision": revision, "fingerprint": weight_fingerprint(folder)}
        for name, revision in zip((base, finetuned), revisions, strict=True)
        for folder in [locate_model(name, revision)]
    ]
    records = {weight: _record(sources, weight) for weight in wanted}
    with locked(out):
        left = [weight for weight in wanted if not _is_there(out, records[weight])]
        with unfinished([_folder(out, weight) for weight in left]) as folders:
            if left:
                names = ModelName(base, revisions[0]), ModelName(finetuned, revisions[1])
                with opened(*names) as pair:
                    _write(*pair, left, folders, progress)
            for folder, weight in zip(folders, left, strict=True):
                write_json(folder / RECORD, records[weight])
                (folder / "README.md").write_text(_card(records[weight]), encoding="utf-8")
    return [Interpolated(weight, _folder(out, weight), weight in left) for weight in wanted]


def _check(weights: Sequence[float]) -> None:
    if not weights or (wrong := [weight for weight in weights if not 0 <= weight <= 100]):
        found = f"{wrong[0]:g}" if weights else "none"
        raise SettingsError(f"Weights are percentages from 0 to 100, at least one; found {found}.")


def _folder(out: Path, weight: float) -> Path:
    return out / f"weight-{weight:g}"


def _record(sources: list[dict[str, Any]], weight: float) -> dict[str, Any]:
    return {"format": FORMAT, "weight": weight, "base": sources[0], "finetuned": sources[1]}


def _is_there(out: Path, record: dict[str, Any]) -> bool:
    target = _folder(out, record["weight"])
    if not target.exists():
        return False
    known = read_json(target / RECORD) if (target / RECORD).is_file() else {}
    if all(
        known.get(side, {}).get("fingerprint") == record[side]["fingerprint"]
        for side in ("base", "finetuned")
    ):
        return True
    raise SettingsError(
        f"{target} is there already and is not this interpolation. Choose another --out or remove "
        "it."
    )


def _write(
    base: ModelWeights,
    finetuned: ModelWeights,
    weights: Sequence[float],
    folders: Sequence[Path],
    progress: Progress,
) -> None:
    odd = [name for name, tensor in finetuned.tensors.items() if tensor.dtype not in HELD_AS]
    pair = match(base, finetuned, Region(name="all", include=("*",), exclude=tuple(odd)))
    names = {tensor.name: tensor.base_name for tensor in pair.tensors}
    names |= {twin: names[name] for twin, name in pair.twins.items()}

    def restorers(name: str) -> Interpolator | None:
        return Interpolator(weights) if name in names else None

    total = sum(tensor.elements for tensor in finetuned.tensors.values())
    job = Job(base, finetuned, folders, restorers, names.__getitem__)
    write_weights(job, progress=lambda count: progress("Writing", count, total))
    for folder in folders:
        copy_side_files(base.folder, finetuned.folder, finetuned.layout.folder, folder)


def _card(record: dict[str, Any]) -> str:
    weight = record["weight"]
    return (
        f"# {Path(record['finetuned']['name']).name}, {weight:g}% of the way from its base\n\n"
        f"Every weight is {100 - weight:g}% of that of the base `{record['base']['name']}` and "
        f"{weight:g}% of that of the fine-tune `{record['finetuned']['name']}`. The licences of "
        "both models apply.\n\nMethod: Wortsman et al., *Robust fine-tuning of zero-shot models*, "
        f"CVPR 2022.\n\nWritten by sftknow-eval {__version__}.\n"
    )
