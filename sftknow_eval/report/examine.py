"""One fine-tune examined: what it knows, what moved, what giving weights back buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.errors import SettingsError
from sftknow_eval.models import is_adapter, locate_model, weight_fingerprint
from sftknow_eval.report.asked import Asked, Material, selection
from sftknow_eval.report.base_of import Base
from sftknow_eval.report.knowledge import Knowledge, ask, read_knowledge
from sftknow_eval.report.panel import Panel
from sftknow_eval.report.parts import Part, is_finished, kept_part

if TYPE_CHECKING:
    from sftknow_eval.evaluation.prompts import Style
    from sftknow_eval.evaluation.results import Outcome

PARTS = ("tokens", "weights", "restoration")
Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Restoration:
    """The curve over the share of weights given back, and the ratio chosen on dev facts.

    Attributes:
        sweeps: what `sweep.json` holds, by set of facts: `dev` and the split of the report.
        chosen: ratio in percent; None where the dev facts decide nothing.
        why: the choice in words.
        plain, restored: the outcomes at ratio 0 and at the chosen one.
    """

    sweeps: Mapping[str, Mapping[str, Any]]
    chosen: float | None
    why: str
    plain: tuple[Outcome, ...]
    restored: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Examined:
    """A fine-tune and all that was found out about it.

    Attributes:
        name: as given.
        label: short and unique in the report.
        nature: `full fine-tune` or `LoRA adapter`.
    """

    name: str
    label: str
    nature: str
    base: Base
    knowledge: Knowledge
    tokens: Part[dict[str, Any]]
    weights: Part[dict[str, Any]]
    restoration: Part[Restoration]


@dataclass(frozen=True, slots=True)
class _Case:
    """A fine-tune under examination.

    Attributes:
        name: as given; an adapter is read by it where weights are compared.
        model: the whole model, which is asked.
        folder: where its parts are kept.
        inputs: what decides each part.
    """

    base: Base
    name: str
    model: str
    label: str
    folder: Path
    inputs: Mapping[str, Mapping[str, Any]]
    progress: Progress

    def say(self, what: str) -> None:
        """Tell what is done now."""
        self.progress(f"{self.label}: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What all fine-tunes of a report are examined by.

    Attributes:
        panels: by split; a split that is not in it is asked whole.
        ratios: percent of the weights to give back.
        without: names of parts to leave out.
    """

    asked: Asked
    material: Material
    panels: Mapping[str, Panel]
    ratios: Sequence[float]
    without: frozenset[str]

    def examine(
        self, base: Base, name: str, label: str, folder: Path, progress: Progress
    ) -> Examined:
        """Examine one fine-tune; what an earlier run finished in `folder` is taken over.

        Raises:
            SftknowError: the models cannot be asked. What else fails is missing in the report.
        """
        located = locate_model(name)
        inputs = self._inputs(base, weight_fingerprint(located))
        wanted = [part for part in inputs if part not in self.without]
        done = all(is_finished(folder / part, inputs[part]) for part in wanted)
        # An adapter is only merged where something is left to measure.
        merged = nullcontext(name) if done else _merged(base, name, folder / "merged")
        with merged as model:
            case = _Case(base, name, model, label, folder, inputs, progress)
            return Examined(
                name=name,
                label=label,
                nature="LoRA adapter" if is_adapter(located) else "full fine-tune",
                base=base,
                knowledge=self._knowledge(case),
                tokens=self._part(case, "tokens", self._measure_tokens, _read_tokens),
                weights=self._part(case, "weights", _measure_weights, _read_weights),
                restoration=self._part(case, "restoration", self._sweep, self._read_restoration),
            )

    def _inputs(self, base: Base, finetuned: str) -> dict[str, dict[str, Any]]:
        """Return what decides each part."""
        pair = {"base": base.fingerprint, "finetuned": finetuned}
        asked = {
            **pair,
            **{"table": self.material.table.meta.fingerprint, "split": self.asked.split},
            **{"quick": self.asked.quick, "style": self.asked.style, "data": self.material.data},
            **{"backend": self.asked.backend, "engine_args": dict(self.asked.engine_args)},
        }
        swept = {**asked, "ratios": sorted(self.ratios)}
        return {"evaluation": asked, "tokens": asked, "weights": pair, "restoration": swept}

    def _knowledge(self, case: _Case) -> Knowledge:
        def make(out: Path) -> None:
            case.say("asking the facts")
            panel = self.panels.get(self.asked.split)
            ask(self.asked, case.base, case.model, self.material, panel, out)

        place = case.folder / "evaluation"
        part = kept_part(place, case.inputs["evaluation"], make, read_knowledge, required=True)
        assert part.value is not None, "a required part is there or was an error"
        return part.value

    def _part(
        self,
        case: _Case,
        name: str,
        measure: Callable[[_Case, Path], None],
        read: Callable[[Path], T],
    ) -> Part[T]:
        if name in self.without:
            return Part(None, f"left out by --without {name}")
        return kept_part(
            case.folder / name, case.inputs[name], lambda out: measure(case, out), read
        )

    def _measure_tokens(self, case: _Case, out: Path) -> None:
        from sftknow_eval.evaluation.tokens.measure import token_drift
        from sftknow_eval.evaluation.tokens.request import TokenDriftRequest

        case.say("comparing next-token probabilities")
        split = self.asked.split
        chosen = selection(self.panels.get(split), split, out)
        request = TokenDriftRequest(
            base=case.base.name,
            finetuned=case.model,
            metadata={**self.material.metadata(), **chosen},
            style=_style_of(case.folder),
            backend=self.asked.backend,
            engine_args=self.asked.engine_args,
        )
        token_drift(request, out)

    def _sweep(self, case: _Case, out: Path) -> None:
        from sftknow_eval.evaluation.run import TASK
        from sftknow_eval.sweep.request import FactSet, SweepRequest
        from sftknow_eval.sweep.run import sweep_sets

        request = SweepRequest(
            base=case.base.name,
            finetuned=case.model,
            ratios=sorted({0.0, *self.ratios}),
            tasks=[TASK],
            metadata={**self.material.metadata(), "style": _style_of(case.folder)},
            backend=self.asked.backend,
            engine_args=self.asked.engine_args,
            batch_size=self.asked.batch_size,
            num_fewshot=0,
        )
        sets: dict[str, FactSet] = {
            name: FactSet(selection(self.panels.get(name), name, out))
            for name in dict.fromkeys(("dev", self.asked.split))
        }
        sweep_sets(request, sets, out, case.say, curves=False)

    def _read_restoration(self, folder: Path) -> Restoration:
        from sftknow_eval.evaluation.facts_file import read_outcomes
        from sftknow_eval.sweep.choose import choose_ratio

        split = self.asked.split
        names: set[str] = {"dev", split}
        sweeps = {name: read_json(folder / name / "sweep.json") for name in names}
        plain = tuple(read_outcomes(folder / split / "ratio-0", "finetuned"))
        try:
            choice = choose_ratio(sweeps["dev"])
        except SettingsError as error:
            return Restoration(sweeps, None, str(error), plain, ())
        place = folder / split / f"ratio-{choice.ratio:g}"
        restored = tuple(read_outcomes(place, "finetuned"))
        return Restoration(sweeps, choice.ratio, choice.why, plain, restored)


def _merged(base: Base, name: str, folder: Path) -> AbstractContextManager[str]:
    from sftknow_eval.restoration.run import ModelName
    from sftknow_eval.restoration.whole import whole_model

    return whole_model(ModelName(base.name), ModelName(name), folder)


def _read_tokens(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "token_drift.json"))


def _read_weights(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "change.json"))


def _style_of(folder: Path) -> Style:
    """Return the prompt style in which the fine-tune was asked."""
    from sftknow_eval.evaluation.prompts import check_style

    return check_style(read_knowledge(folder / "evaluation").summary["finetuned"]["style"])


def _measure_weights(case: _Case, out: Path) -> None:
    """Write what `sftknow drift weights` writes into change.json."""
    from sftknow_eval.drift.change import measure
    from sftknow_eval.drift.report import CURVE_RATIOS, PAPER_RATIOS, report
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.regions import Region
    from sftknow_eval.restoration.run import ModelName, opened

    case.say("comparing weights")
    with opened(ModelName(case.base.name), ModelName(case.name)) as models:
        pair = match(*models, Region())
        ratios = sorted({*PAPER_RATIOS, *CURVE_RATIOS})
        change = measure(*models, pair.tensors, ratios, statistics=True)
    write_json(out / "change.json", report(change).as_json())
