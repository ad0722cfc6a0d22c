"""One fine-tune examined: what it knows, what moved, what giving weights back buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.models import locate_model, weight_fingerprint
from sftknow_eval.report.asked import Asked, Material, selection
from sftknow_eval.report.base_of import Base, is_adapter
from sftknow_eval.report.knowledge import Knowledge, ask, read_knowledge, whole_model
from sftknow_eval.report.panel import Panel
from sftknow_eval.report.parts import Part, is_finished, kept_part

if TYPE_CHECKING:
    from sftknow_eval.evaluation.prompts import Style
    from sftknow_eval.evaluation.results import Outcome

PARTS = ("tokens", "weights", "restoration")
Progress = Callable[[str], None]


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
        nature = "LoRA adapter" if is_adapter(located) else "full fine-tune"
        inputs = {
            **{"base": base.fingerprint, "finetuned": weight_fingerprint(located)},
            **{"table": self.material.table.meta.fingerprint, "split": self.asked.split},
            **{"quick": self.asked.quick, "style": self.asked.style, "data": self.material.data},
            **{"backend": self.asked.backend, "engine_args": dict(self.asked.engine_args)},
        }
        wanted = [folder / part for part in ("evaluation", *PARTS) if part not in self.without]
        done = all(is_finished(part, self._inputs_of(part.name, inputs)) for part in wanted)
        # An adapter is only merged where something is left to measure.
        merged = nullcontext(name) if done else whole_model(base, name, folder / "merged")
        with merged as model:
            return Examined(
                name=name,
                label=label,
                nature=nature,
                base=base,
                knowledge=self._knowledge(base, model, folder, inputs, progress, label),
                tokens=self._tokens(base, model, folder, inputs, progress, label),
                weights=self._weights(base, name, folder, inputs, progress, label),
                restoration=self._restoration(base, model, folder, inputs, progress, label),
            )

    def _inputs_of(self, part: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what decides one part."""
        if part == "weights":
            return {key: inputs[key] for key in ("base", "finetuned")}
        return {**inputs, "ratios": sorted(self.ratios)} if part == "restoration" else {**inputs}

    def _knowledge(
        self,
        base: Base,
        model: str,
        folder: Path,
        inputs: Mapping[str, Any],
        progress: Progress,
        label: str,
    ) -> Knowledge:
        def make(out: Path) -> None:
            progress(f"{label}: asking the facts")
            ask(self.asked, base, model, self.material, self.panels.get(self.asked.split), out)

        part = kept_part(folder / "evaluation", inputs, make, read_knowledge, required=True)
        assert part.value is not None, "a required part is there or was an error"
        return part.value

    def _left_out(self, part: str) -> str | None:
        return f"left out by --without {part}" if part in self.without else None

    def _tokens(
        self,
        base: Base,
        model: str,
        folder: Path,
        inputs: Mapping[str, Any],
        progress: Progress,
        label: str,
    ) -> Part[dict[str, Any]]:
        if why := self._left_out("tokens"):
            return Part(None, why)

        def make(out: Path) -> None:
            progress(f"{label}: comparing next-token probabilities")
            self._measure_tokens(base, model, folder, out)

        return kept_part(
            folder / "tokens", inputs, make, lambda out: dict(read_json(out / "token_drift.json"))
        )

    def _measure_tokens(self, base: Base, model: str, folder: Path, out: Path) -> None:
        from sftknow_eval.evaluation.tokens.measure import token_drift
        from sftknow_eval.evaluation.tokens.request import TokenDriftRequest

        split = self.asked.split
        chosen = selection(self.panels.get(split), split, out)
        request = TokenDriftRequest(
            base=base.name,
            finetuned=model,
            metadata={**self.material.metadata(), **chosen},
            style=_style_of(folder),
            backend=self.asked.backend,
            engine_args=self.asked.engine_args,
        )
        token_drift(request, out)

    def _weights(
        self,
        base: Base,
        name: str,
        folder: Path,
        inputs: Mapping[str, Any],
        progress: Progress,
        label: str,
    ) -> Part[dict[str, Any]]:
        if why := self._left_out("weights"):
            return Part(None, why)

        def make(out: Path) -> None:
            progress(f"{label}: comparing weights")
            write_json(out / "change.json", measure_weights(base, name))

        own = self._inputs_of("weights", inputs)
        return kept_part(
            folder / "weights", own, make, lambda out: dict(read_json(out / "change.json"))
        )

    def _restoration(
        self,
        base: Base,
        model: str,
        folder: Path,
        inputs: Mapping[str, Any],
        progress: Progress,
        label: str,
    ) -> Part[Restoration]:
        if why := self._left_out("restoration"):
            return Part(None, why)
        split = self.asked.split

        def make(out: Path) -> None:
            from sftknow_eval.evaluation.run import TASK
            from sftknow_eval.sweep.request import FactSet, SweepRequest
            from sftknow_eval.sweep.run import sweep_sets

            request = SweepRequest(
                base=base.name,
                finetuned=model,
                ratios=sorted({0.0, *self.ratios}),
                tasks=[TASK],
                metadata={**self.material.metadata(), "style": _style_of(folder)},
                backend=self.asked.backend,
                engine_args=self.asked.engine_args,
                batch_size=self.asked.batch_size,
                num_fewshot=0,
            )
            sets: dict[str, FactSet] = {
                name: FactSet(selection(self.panels.get(name), name, out))
                for name in dict.fromkeys(("dev", split))
            }
            sweep_sets(request, sets, out, lambda line: progress(f"{label}: {line}"), curves=False)

        wanted = self._inputs_of("restoration", inputs)
        return kept_part(
            folder / "restoration", wanted, make, lambda out: _read_restoration(out, split)
        )


def _style_of(folder: Path) -> Style:
    """Return the prompt style in which the fine-tune was asked."""
    from sftknow_eval.evaluation.prompts import check_style

    return check_style(read_knowledge(folder / "evaluation").summary["finetuned"]["style"])


def _read_restoration(folder: Path, split: str) -> Restoration:
    from sftknow_eval.errors import SettingsError
    from sftknow_eval.evaluation.facts_file import read_outcomes
    from sftknow_eval.sweep.choose import choose_ratio

    sweeps = {name: read_json(folder / name / "sweep.json") for name in {"dev", split}}
    plain = tuple(read_outcomes(folder / split / "ratio-0", "finetuned"))
    try:
        choice = choose_ratio(sweeps["dev"])
    except SettingsError as error:
        return Restoration(sweeps, None, str(error), plain, ())
    place = folder / split / f"ratio-{choice.ratio:g}"
    restored = tuple(read_outcomes(place, "finetuned"))
    return Restoration(sweeps, choice.ratio, choice.why, plain, restored)


def measure_weights(base: Base, finetuned: str) -> dict[str, Any]:
    """Return what `sftknow drift weights` writes into change.json.

    Raises:
        CheckpointError: the weights cannot be compared.
    """
    from sftknow_eval.drift.change import measure
    from sftknow_eval.drift.report import CURVE_RATIOS, PAPER_RATIOS, report
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.regions import Region
    from sftknow_eval.restoration.run import ModelName, opened

    with opened(ModelName(base.name), ModelName(finetuned)) as models:
        pair = match(*models, Region())
        ratios = sorted({*PAPER_RATIOS, *CURVE_RATIOS})
        return report(measure(*models, pair.tensors, ratios, statistics=True)).as_json()
