"""From a configuration to its steps, in an order in which they could run one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftknow_eval.config_faults import read_config
from sftknow_eval.errors import SettingsError
from sftknow_eval.study.cells import Cell, cells
from sftknow_eval.study.config import Base, Group, OtherTask, Study, resolve
from sftknow_eval.study.echo import TASK, TRAIN
from sftknow_eval.study.plan import BOARD, REPORT, STATISTICS, Places, Plan, Run
from sftknow_eval.study.step import INSIDE, Step
from sftknow_eval.training.strategy import (
    Strategy,
    known_strategies,
    load_strategy,
    strategies_path,
)

# Rows of a task that is made, where the file says no number.
MADE_ROWS = 1_920
WEIGHT_RATIOS = (1, 3, 5, 10, 20, 40, 60)


def make_plan(study: Study, folder: Path) -> Plan:
    """Plan a study.

    Args:
        study: the configuration.
        folder: of the configuration's file, from which its paths are seen.

    Raises:
        SettingsError: a strategy that is unknown, or does not fit the others.
    """
    planner = _Planner(study, folder)
    for number, base in enumerate(study.bases):
        planner.base(base, "" if number == 0 else f"{base.id}/")
    for group in study.runs:
        planner.group(group)
    for task in study.other_tasks:
        planner.other_task(task)
    planner.last()
    return planner.plan


class _Planner:
    """Adds steps to a plan, each after those that it needs."""

    def __init__(self, study: Study, folder: Path) -> None:
        self._folder = folder
        self.plan = Plan(study, {}, {}, {})

    def _add(self, step: Step) -> str:
        self.plan.steps[step.name] = step
        return step.name

    def _add_to(
        self,
        run: Run,
        name: str,
        kind: str,
        inputs: dict[str, str],
        settings: dict[str, Any],
        needs: tuple[str, ...],
        *,
        gpu: bool = True,
    ) -> str:
        full = f"runs/{run.cell.id}/{name}"
        needs = tuple(dict.fromkeys((*self.plan.places[run.cell.base].needs, *needs)))
        run.steps[name] = self._add(Step(full, kind, inputs, settings, needs, (), run.cell.id, gpu))
        return full

    def base(self, base: Base, prefix: str) -> None:
        """Add a base: its facts and mastery table, where they are not given, and its answers."""
        places = self.plan.places[base.id] = self._places(base, prefix)
        splits = {"test"}
        for group in self.plan.study.runs:
            splits |= {*group.evaluate, *(group.sweep.splits if group.sweep else ())}
        run = self._run(Cell("base", base.id), "base")
        # All other evaluations find the base's answers in the cache.
        for split in ("test", "dev", "train"):
            if split in splits:
                self._evaluation(run, split, places.base, (), style="completion")

    def _places(self, base: Base, prefix: str) -> Places:
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
        settings = self.plan.study.probe.model_dump() | {"revision": base.revision}
        inputs = {"base": model} | ({"data": data} if data else {})
        probe = self._add(Step(f"{prefix}probe", "probe", inputs, settings, needs))
        return Places(model, f"{INSIDE}{probe}/mastery.parquet", data, (*needs, probe))

    def _run(self, cell: Cell, kind: str) -> Run:
        if cell.id in self.plan.runs:
            raise SettingsError(
                f"The study has the run {cell.id} twice: two groups share a strategy, a base, a "
                "stratum and an n. Put them into one group."
            )
        self.plan.runs[cell.id] = run = Run(cell, kind)
        return run

    def _asking(self, **more: Any) -> dict[str, Any]:
        asked = self.plan.study.evaluation
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
        inputs = {**self.plan.places[run.cell.base].inputs, "model": model}
        settings = self._asking(split=split, **more)
        needs = (*self._base_answers(run, split), *needs)
        self._add_to(run, f"eval-{split}", "evaluate", inputs, settings, needs)

    def _base_answers(self, run: Run, split: str) -> tuple[str, ...]:
        answers = self.plan.runs[Cell("base", run.cell.base).id].steps.get(f"eval-{split}")
        return (answers,) if answers else ()

    def group(self, group: Group) -> None:
        """Add the runs of a group, and what is measured on them."""
        strategy = self._strategy(group.strategy)
        if strategy.kind == "base":
            return  # always there
        for cell in cells(self.plan.study, group, strategy):
            run = self._run(cell, strategy.kind)
            if strategy.is_trained:
                self._trained(run, group, strategy)
            elif strategy.kind == "restoration":
                self._restored(run, group, strategy)
            elif strategy.kind == "interpolation":
                self._interpolated(run, group, strategy)
            elif strategy.kind == "published":
                self._published(run, group)
            else:
                self._base_again(run, group)

    def _trained(self, run: Run, group: Group, strategy: Strategy) -> None:
        places, cell = self.plan.places[run.cell.base], run.cell
        base = next(base for base in self.plan.study.bases if base.id == cell.base)
        settings = {
            **{"stratum": cell.stratum, "n": cell.n, "draw": cell.draw, "revision": base.revision},
            **self._training(group.settings, strategy),
        }
        model = self._add_to(run, "model", "train", places.inputs, settings, ())
        for split in group.evaluate:
            self._evaluation(run, split, f"{INSIDE}{model}", (model,))
        self._measures(run, group, model)

    def _training(self, own: Mapping[str, Any], strategy: Strategy) -> dict[str, Any]:
        """Return how a model is trained: the study's settings, then its own, and the strategy."""
        launch = self.plan.study.compute.launch
        return {
            "training": {**self.plan.study.training, **own},
            "strategy": strategy.model_dump(mode="json", exclude_defaults=True),
            **({"launch": list(launch)} if launch else {}),
        }

    def _measures(self, run: Run, group: Group, model: str) -> None:
        cell, inputs = run.cell, dict(self.plan.places[run.cell.base].inputs)
        inputs["model"] = f"{INSIDE}{model}"
        assert cell.draw is not None
        where = (cell.stratum, cell.n, cell.draw)
        if (sweep := group.sweep) and sweep.takes(*where):
            asked = self._asking(
                ratios=list(sweep.ratios),
                splits=list(sweep.splits),
                own_facts=list(sweep.own_facts),
            )
            self._add_to(run, "sweep", "sweep", inputs, asked, (model,))
        if (layers := group.layers) and layers.takes(*where):
            asked = self._asking(ranges=list(layers.ranges))
            self._add_to(run, "layers", "layers", inputs, asked, (model,))
        if (chosen := group.token_drift) and chosen.takes(*where):
            asked = self._asking()
            asked = {name: asked[name] for name in ("backend", "engine_args")}
            self._add_to(run, "tokens", "tokens", inputs, asked, (model,))
        if (chosen := group.weights) and chosen.takes(*where):
            asked = {"ratios": list(WEIGHT_RATIOS)}
            self._add_to(run, "weights", "weights", inputs, asked, (model,), gpu=False)

    def _source(self, run: Run, strategy: Strategy, draw: int | None = None) -> Run:
        """Return the run that a run is derived from, or that of another draw."""
        assert strategy.derived_from is not None
        cell = run.cell.of(strategy.derived_from, draw)
        if cell.id not in self.plan.runs:
            raise SettingsError(
                f"The run {run.cell.id} is made from {cell.id}, which this study does not have. "
                f"Put a group of {strategy.derived_from} with that stratum, n and draw before it."
            )
        return self.plan.runs[cell.id]

    def _restored(self, run: Run, group: Group, strategy: Strategy) -> None:
        assert strategy.restoration is not None
        source = self._source(run, strategy)
        swept = next(
            (r for r in (source, self._source(run, strategy, 0)) if "sweep" in r.steps), None
        )
        if swept is None:
            raise SettingsError(
                f"The ratio of {run.cell.id} is chosen on a sweep over dev, but neither "
                f"{source.cell.id} nor its draw 0 has one. Give its group a 'sweep'."
            )
        model, sweep = source.steps["model"], swept.steps["sweep"]
        inputs = {
            **self.plan.places[run.cell.base].inputs,
            **{"model": f"{INSIDE}{model}", "choice": f"{INSIDE}{sweep}"},
        }
        how = strategy.restoration
        for split in group.evaluate:
            settings = self._asking(
                split=split, order=how.order, order_seed=how.seed, region=how.region
            )
            needs = (*self._base_answers(run, split), model, sweep)
            self._add_to(run, f"eval-{split}", "restored", inputs, settings, needs)

    def _interpolated(self, run: Run, group: Group, strategy: Strategy) -> None:
        assert strategy.interpolation is not None
        assert run.cell.draw is not None
        source = self._source(run, strategy)
        inputs = dict(self.plan.places[run.cell.base].inputs)
        inputs["model"] = f"{INSIDE}{source.steps['model']}"
        first = run if run.cell.draw == 0 else self.plan.runs[run.cell.of(strategy.name, 0).id]
        if first is run:
            asked = self._asking(
                weights=list(strategy.interpolation.weights), splits=["dev", "test"]
            )
            answers = [*self._base_answers(run, "test"), *self._base_answers(run, "dev")]
            needs = (*answers, source.steps["model"])
            self._add_to(run, "curve", "interpolation-curve", inputs, asked, needs)
        inputs["choice"] = f"{INSIDE}{first.steps['curve']}"
        needs = (source.steps["model"], first.steps["curve"])
        model = self._add_to(run, "model", "interpolate", inputs, {}, needs, gpu=False)
        for split in group.evaluate:
            self._evaluation(run, split, f"{INSIDE}{model}", (model,))

    def _published(self, run: Run, group: Group) -> None:
        if group.model is None:
            raise SettingsError(
                f"The strategy '{group.strategy}' is a published checkpoint: name it with 'model'."
            )
        for split in group.evaluate:
            self._evaluation(run, split, resolve(group.model, self._folder), ())

    def _base_again(self, run: Run, group: Group) -> None:
        inputs = self.plan.places[run.cell.base].inputs
        for split in group.evaluate:
            self._add_to(run, f"eval-{split}", "null-row", inputs, {"split": split}, (), gpu=False)

    def other_task(self, task: OtherTask) -> None:
        """Add a task that is not about facts: its rows, its training, its sweep."""
        places = self.plan.places[task.base]
        needs: tuple[str, ...] = ()
        base = next(base for base in self.plan.study.bases if base.id == task.base)
        prompts, names, folder = task.prompts, list(task.tasks), task.include_path
        if task.make:
            made = self._add(
                Step(
                    f"other/{task.name}/task",
                    task.make,
                    {"data": places.data or ""},
                    {"n": task.n or MADE_ROWS, "seed": task.seed},
                    places.needs,
                    gpu=False,
                )
            )
            needs, prompts, names = (made,), f"{INSIDE}{made}/{TRAIN}", [TASK]
            folder = f"{INSIDE}{made}"
        assert prompts is not None
        strategy = self._strategy(task.strategy)
        settings = {
            **{"n": None if task.make else task.n, "draw": task.seed, "revision": base.revision},
            **self._training(task.settings, strategy),
        }
        inputs = {"base": places.base, "prompts": self._seen(prompts)}
        needs = (*places.needs, *needs)
        model = self._add(Step(f"other/{task.name}/model", "train", inputs, settings, needs))
        inputs = {"base": places.base, "model": f"{INSIDE}{model}"}
        inputs |= {"tasks": self._seen(folder)} if folder else {}
        asked = self._asking(ratios=list(task.ratios), tasks=names)
        asked["limit"] = task.limit
        swept = Step(f"other/{task.name}/sweep", "other-task", inputs, asked, (*needs, model))
        self._add(swept)

    def _seen(self, place: str) -> str:
        """Return a location as the study sees it: within its folder, or from the file's."""
        return place if place.startswith(INSIDE) else resolve(place, self._folder)

    def _strategy(self, name: str) -> Strategy:
        path = self._folder / name
        if not path.is_file() and name in known_strategies():
            # Those of the project are tested; checking them anew would import torch and PEFT.
            return read_config(strategies_path() / f"{name}.yaml", Strategy)
        return load_strategy(path if path.is_file() else name)

    def last(self) -> None:
        """Add what looks at all runs: statistics, report, board."""
        asked = self.plan.study.statistics.model_dump()
        study, before = self.plan.study, tuple(self.plan.steps)
        self._add(Step(STATISTICS, "statistics", {}, asked, (), before, gpu=False))
        if study.report:
            self._add(Step(REPORT, "report", {}, {}, (STATISTICS,), before, gpu=False))
        if study.board:
            asked = study.board.model_dump()
            self._add(Step(BOARD, "board", {}, asked, (), before, gpu=False))
