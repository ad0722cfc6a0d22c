"""One ratio's results: what was loaded, what it scored, and whether they can be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.facts import DOMAINS
from sftknow_eval.restoration.recipe import Recipe

POINT_FORMAT = "sftknow-sweep-point/1"
POINT_NAME = "results.json"
_NORMAL_95 = 1.959964  # lm-eval gives standard errors


def point_folder(out: Path, ratio: float) -> Path:
    """Return the folder of one ratio's results."""
    return out / f"ratio-{ratio:g}"


def finished_point(out: Path, ratio: float, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the results that an earlier run left for a ratio, if there are any.

    Raises:
        SettingsError: they are of other settings; the differing ones are named.
    """
    path = point_folder(out, ratio) / POINT_NAME
    if not path.is_file():
        return None
    point: dict[str, Any] = read_json(path)
    before = point.get("settings") or {}
    names = sorted(before.keys() | settings.keys())
    differing = [name for name in names if before.get(name) != settings.get(name)]
    if point.get("format") != POINT_FORMAT or differing:
        raise SettingsError(
            f"{path} is of other settings than this run: {', '.join(differing) or 'its format'} "
            "differ. Choose another --out, or remove the folder."
        )
    return point


def same_models(recipes: Sequence[Recipe]) -> dict[float, float]:
    """Return the ratios that give the same model as an earlier one, and which.

    Where every changed weight is back, a larger ratio does nothing; and two small ratios may
    select the same elements.
    """
    same: dict[float, float] = {}
    kept: list[Recipe] = []
    for recipe in recipes:
        twin = next((earlier for earlier in kept if _same(earlier, recipe)), None)
        if twin is None:
            kept.append(recipe)
        else:
            same[recipe.ratio] = twin.ratio
    return same


def _same(one: Recipe, other: Recipe) -> bool:
    if one.effective_restored == other.effective_restored == 0:
        return True
    return (one.saturated and other.saturated) or one.restored == other.restored


def of_changed(recipe: Recipe) -> float:
    """Return the percentage of the changed weights that a recipe restores."""
    return 100 * recipe.effective_restored / recipe.changed if recipe.changed else 0.0


def task_metrics(results: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the metrics of lm-eval's results for the tasks asked for.

    A group without a score of its own is replaced by its members.

    Args:
        results: what `lm_eval.evaluate` returned.
        tasks: names as asked for.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        names = [task]
        if not _metrics(results["results"].get(task, {})):
            names = list(results.get("group_subtasks", {}).get(task, []))
        for name in names:
            if metrics := _metrics(results["results"].get(name, {})):
                found[name] = metrics
    return found


def _metrics(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return value and standard error by metric (`name,filter` as lm-eval writes it)."""
    found = {}
    for key, value in entry.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        error = entry.get(f"{metric}_stderr,{kind}")
        shown = metric if kind == "none" else key
        found[shown] = {"value": value, "stderr": error if isinstance(error, float) else None}
    return found


def series(point: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float | None]]:
    """Return what a point's table row and the curve show: value, low and high by name.

    The facts' means over strata, and the first metric of every other task.
    """
    shown: dict[str, tuple[float, float | None, float | None]] = {}
    for domain in DOMAINS if point["scores"] else ():
        mean = point["scores"][domain]["alias_acc"]["mean"]
        if mean["value"] is not None:
            shown[f"facts, {domain.upper()}"] = (mean["value"], mean["low"], mean["high"])
    for task, metrics in point["tasks"].items():
        metric, entry = next(iter(metrics.items()))
        value, error = entry["value"], entry["stderr"]
        low = None if error is None else value - _NORMAL_95 * error
        high = None if error is None else value + _NORMAL_95 * error
        shown[f"{task}, {metric}"] = (value, low, high)
    return shown
