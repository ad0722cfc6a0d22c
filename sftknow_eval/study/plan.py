"""From a configuration to its steps, in an order in which they could run one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.study.cells import Cell, cells
from sftknow_eval.study.config import Base, Group, Study, resolve
from sftknow_eval.study.step import INSIDE, Step


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the study: its cell, and the steps that belong to it, by what they yield."""

    id: str
    strategy: str
    base: str
    cell: Cell | None
    steps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps by name, and the runs that they make up."""

    study: Study
    steps: dict[str, Step]
    runs: dict[str, Run]
    places: dict[str, Places]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a base, its facts and its mastery table are."""

    base: str
    mastery: str
    data: str | None
    needs: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, str]:
        """Return the locations by role."""
        found = {"base": self.base, "mastery": self.mastery}
        return found | ({"data": self.data} if self.data else {})


def make_plan(study: Study, folder: Path) -> Plan:
    """Plan a study.

    Args:
        study: the configuration.
        folder: of the configuration's file, from which its paths are seen.

    Raises:
        SettingsError: a strategy that is unknown, or does not fit the others.
    """
    return _Planner(study, folder).plan()


class _Planner:
    def __init__(self, study: Study, folder: Path) -> None:
        self._study, self._folder = study, folder
        self._steps: dict[str, Step] = {}
        self._runs: dict[str, Run] = {}
        self._places: dict[str, Places] = {}

    def plan(self) -> Plan:
        for number, base in enumerate(self._study.bases):
            self._places[base.id] = self._probed(base, "" if number == 0 else f"{base.id}/")
            self._base_run(base)
        for group in self._study.runs:
            for cell in cells(self._study, group, trains=True):
                self._run(cell)
        return Plan(self._study, self._steps, self._runs, self._places)

    def _add(self, step: Step) -> str:
        self._steps[step.name] = step
        return step.name

    def _probed(self, base: Base, prefix: str) -> Places:
        """Add the steps that make a base's facts and mastery table, where they are not given."""
        needs: tuple[str, ...] = ()
        data: str | None
        if base.world:
            world = self._add(Step(f"{prefix}world", "world", settings=base.world.model_dump()))
            needs, model, data = (world,), f"{INSIDE}{world}/base", f"{INSIDE}{world}"
        else:
            assert base.model is not None
            model = resolve(base.model, self._folder)
            data = resolve(base.data, self._folder) if base.data else None
        if base.mastery:
            return Places(model, resolve(base.mastery, self._folder), data, needs)
        settings = self._study.probe.model_dump() | {"revision": base.revision}
        inputs = {"base": model} | ({"data": data} if data else {})
        probe = self._add(Step(f"{prefix}probe", "probe", inputs, settings, needs))
        return Places(model, f"{INSIDE}{probe}/mastery.parquet", data, (*needs, probe))

    def _base_run(self, base: Base) -> None:
        """Add the base itself, asked what any run is asked: others are compared to it."""
        splits = {"test"}
        for group in self._study.runs:
            splits |= {*group.evaluate, *(group.sweep.splits if group.sweep else ())}
        run = Run("base" if base.id == "base" else f"{base.id}-base", "base", base.id, None)
        self._runs[run.id] = run
        for split in sorted(splits - {"train"}, reverse=True):
            self._evaluation(run, split, self._places[base.id].base, (), style="completion")

    def _asking(self, **more: Any) -> dict[str, Any]:
        asked = self._study.evaluation
        size = asked.batch_size
        return {
            "backend": asked.backend,
            "engine_args": dict(asked.engine_args),
            "batch_size": None if size is None else str(size),
            "limit": asked.limit,
            **more,
        }

    def _evaluation(
        self, run: Run, split: str, model: str, needs: tuple[str, ...], **more: Any
    ) -> None:
        places = self._places[run.base]
        base_run = "base" if run.base == "base" else f"{run.base}-base"
        # The base is asked once; every other evaluation finds its answers in the cache.
        before = self._runs[base_run].steps.get(f"eval-{split}")
        after_base = (before,) if before and run.id != base_run else ()
        run.steps[f"eval-{split}"] = self._add(
            Step(
                f"runs/{run.id}/eval-{split}",
                "evaluate",
                {**places.inputs, "model": model},
                self._asking(split=split, **more),
                (*places.needs, *after_base, *needs),
                run.id,
            )
        )

    def _run(self, cell: Cell) -> None:
        run = Run(cell.id, cell.group.strategy, cell.base, cell)
        self._runs[run.id] = run
        places = self._places[cell.base]
        model = self._add(
            Step(
                f"runs/{run.id}/model",
                "train",
                places.inputs,
                self._training(cell),
                places.needs,
                run.id,
            )
        )
        run.steps["model"] = model
        for split in cell.group.evaluate:
            self._evaluation(run, split, f"{INSIDE}{model}", (model,))
        self._measures(run, cell, model)

    def _training(self, cell: Cell) -> dict[str, Any]:
        base = next(base for base in self._study.bases if base.id == cell.base)
        training: Mapping[str, Any] = self._study.training
        return {
            "stratum": cell.stratum,
            "n": cell.n,
            "draw": cell.draw,
            "revision": base.revision,
            "training": {**training, **cell.group.settings},
        }

    def _measures(self, run: Run, cell: Cell, model: str) -> None:
        group: Group = cell.group
        places = self._places[cell.base]
        assert cell.draw is not None
        where = (cell.stratum, cell.n, cell.draw)
        inputs = {**places.inputs, "model": f"{INSIDE}{model}"}

        def measure(name: str, kind: str, settings: dict[str, Any], *, gpu: bool = True) -> None:
            run.steps[name] = self._add(
                Step(f"runs/{run.id}/{name}", kind, inputs, settings, (model,), run.id, gpu)
            )

        if (sweep := group.sweep) and sweep.takes(*where):
            asked = self._asking(ratios=list(sweep.ratios), splits=list(sweep.splits))
            measure("sweep", "sweep", asked)
        if (chosen := group.weights) and chosen.takes(*where):
            measure("weights", "weights", {"ratios": [1, 3, 5, 10, 20, 40, 60]}, gpu=False)
