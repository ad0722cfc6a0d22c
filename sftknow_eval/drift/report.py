"""The change report: what moved, how concentrated it is, and where restoration acts.

Source: Tables 3 (concentration), 9 and 10 (restored elements per layer and per module).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sftknow_eval.drift.change import Change
from sftknow_eval.drift.spread import QUANTILES, Statistics, value
from sftknow_eval.drift.tensors import Compared, Counts

PAPER_RATIOS = (1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
# Further points of the concentration curve.
CURVE_RATIOS = (0.1, 0.3, 0.5, 2.0, 7.0, 15.0, 30.0, 50.0, 80.0, 100.0)


@dataclass(frozen=True)
class AtRatio:
    """What restoring a ratio means.

    Attributes:
        ratio: percent of the region's elements.
        restored: elements.
        effective_restored: restored elements that had changed at all.
        saturated: every changed element is restored, so that a larger ratio does nothing.
        of_changed: effective_restored in percent of the changed elements.
        threshold: the smallest relative change that is restored; None if nothing is.
        concentration: share of the sum of all relative changes that the restored elements hold;
            None where nothing changed. Source: Table 3.
    """

    ratio: float
    restored: int
    effective_restored: int
    saturated: bool
    of_changed: float | None
    threshold: float | None
    concentration: float | None


@dataclass(frozen=True)
class Share:
    """One layer's, one module's or one cell's part in the restored elements.

    Attributes:
        elements: its elements.
        changed: those that changed at all.
        restored: for each ratio.
        share: of all restored elements, for each ratio; None where none is restored.
        enrichment: that share over its share of all elements; 1 is as much as its size says.
    """

    elements: int
    changed: int
    restored: tuple[int, ...]
    share: tuple[float | None, ...]
    enrichment: tuple[float | None, ...]


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the region."""

    name: str
    layer: int | None
    module: str
    elements: int
    changed: int
    statistics: Statistics
    restored: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """The change report of a pair, for the order `top`."""

    elements: int
    changed: int
    whole: Statistics
    ratios: tuple[AtRatio, ...]
    layers: dict[int, Share]
    modules: dict[str, Share]
    cells: dict[tuple[int, str], Share]
    tensors: tuple[TensorRow, ...]

    @property
    def changed_fraction(self) -> float:
        """Share of the region's elements that changed at all."""
        return self.changed / self.elements

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "elements": self.elements,
            "changed": self.changed,
            "changed_fraction": self.changed_fraction,
            "quantiles_at": list(QUANTILES),
            "whole": _statistics(self.whole),
            "ratios": [asdict(at) for at in self.ratios],
            "layers": {str(layer): asdict(share) for layer, share in self.layers.items()},
            "modules": {module: asdict(share) for module, share in self.modules.items()},
            "tensors": [
                {
                    **{key: getattr(row, key) for key in ("name", "layer", "module", "elements")},
                    **{"changed": row.changed, "restored": list(row.restored)},
                    **_statistics(row.statistics),
                }
                for row in self.tensors
            ],
        }


def _statistics(statistics: Statistics) -> dict[str, Any]:
    mean = statistics.total / statistics.elements if statistics.elements else None
    return {
        "mean": mean,
        "total": statistics.total,
        "quantiles": list(statistics.quantiles),
        "change_norm": statistics.change_norm,
        "relative_norm": statistics.relative_norm,
    }


def _shares(change: Change, key: Callable[[Compared], Hashable | None]) -> dict[Any, Share]:
    restored_JT = np.array([cut.restored_T for cut in change.cuts]).reshape(len(change.cuts), -1)
    members: dict[Any, list[int]] = {}
    for t, tensor in enumerate(change.tensors):
        if (place := key(tensor)) is not None:
            members.setdefault(place, []).append(t)
    sizes_T: Counts = np.array([tensor.common for tensor in change.tensors])
    shares = {}
    for place in sorted(members):
        mine = members[place]
        size = int(sizes_T[mine].sum())
        restored = tuple(int(count) for count in restored_JT[:, mine].sum(axis=1))
        share = tuple(
            count / cut.wanted if cut.wanted else None
            for count, cut in zip(restored, change.cuts, strict=True)
        )
        part = size / change.elements
        enrichment = tuple(None if one is None or not part else one / part for one in share)
        shares[place] = Share(size, int(change.changed_T[mine].sum()), restored, share, enrichment)
    return shares


def _at_ratios(change: Change) -> tuple[AtRatio, ...]:
    found = []
    for j, ratio in enumerate(change.ratios):
        cut, effective = change.cuts[j], change.effective[j]
        found.append(
            AtRatio(
                ratio=ratio,
                restored=cut.wanted,
                effective_restored=effective,
                saturated=effective == change.changed,
                of_changed=100 * effective / change.changed if change.changed else None,
                threshold=value(cut.threshold) if cut.wanted else None,
                concentration=change.concentration[j],
            )
        )
    return tuple(found)


def _cell(tensor: Compared) -> tuple[int, str] | None:
    return None if tensor.layer is None else (tensor.layer, tensor.module)


def report(change: Change) -> Report:
    """Turn a change measured with statistics into the report."""
    assert change.whole is not None, "measure(..., statistics=True)"
    restored_JT: Sequence[Counts] = [cut.restored_T for cut in change.cuts]
    return Report(
        elements=change.elements,
        changed=change.changed,
        whole=change.whole,
        ratios=_at_ratios(change),
        layers=_shares(change, lambda tensor: tensor.layer),
        modules=_shares(change, lambda tensor: tensor.module),
        cells=_shares(change, _cell),
        tensors=tuple(
            TensorRow(
                *(tensor.name, tensor.layer, tensor.module, tensor.common),
                *(int(change.changed_T[t]), change.statistics[t]),
                tuple(int(restored_T[t]) for restored_T in restored_JT),
            )
            for t, tensor in enumerate(change.tensors)
        ),
    )
