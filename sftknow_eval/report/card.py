"""The report card: fine-tunes of one base examined, side by side and paired.

Writes `index.html`, `report.json` and `report.md`. The measurements are kept beside them, so that
a report that was stopped goes on, and one more fine-tune costs no more than itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval import __version__
from sftknow_eval.artifacts import atomic_path, write_json
from sftknow_eval.errors import OtherBase, SettingsError
from sftknow_eval.report import card_knowledge, card_weights
from sftknow_eval.report.asked import Asked, Material, material_for
from sftknow_eval.report.base_of import Base, base_of
from sftknow_eval.report.card_opening import definitions, opening, panel_widths
from sftknow_eval.report.document import Block, Document, Links, Section
from sftknow_eval.report.examine import PARTS, Examination, Examined
from sftknow_eval.report.shares import Lost, lost_share
from sftknow_eval.report.words import difference_sentence, extremes_sentence, lost_sentence

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Comparison
    from sftknow_eval.mastery.facts import Split
    from sftknow_eval.report.panel import Panel

logger = logging.getLogger(__name__)
FORMAT = "sftknow-report/1"
PAGE_NAME, JSON_NAME, MARKDOWN_NAME = "index.html", "report.json", "report.md"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRequest:
    """What to examine.

    Attributes:
        asked: how; its base is that of all fine-tunes.
        finetuned: folders or hub ids.
        ratios: percent of the weights to give back, for the curve.
        without: names of parts to leave out.
    """

    asked: Asked
    finetuned: tuple[str, ...]
    ratios: tuple[float, ...] = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := sorted(self.without - set(PARTS)):
            raise SettingsError(
                f"--without {unknown[0]!r}: the parts are {', '.join(PARTS)}; what was kept and "
                "lost is always in a report."
            )


@dataclass(frozen=True, slots=True)
class Card:
    """A finished report: its page, and its findings in words."""

    page: Path
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report says.

    Attributes:
        comparison: of all fine-tunes with the base, and with the first of them.
        restored: by label, the model restored by the chosen ratio beside the plain fine-tune.
        lost: by label, what was lost of all that the base knows.
    """

    request: CardRequest
    material: Material
    panels: Mapping[str, Panel]
    several: tuple[Examined, ...]
    comparison: Comparison
    restored: Mapping[str, Comparison]
    lost: Mapping[str, Lost]


def report_card(request: CardRequest, out: Path, progress: Progress = lambda line: None) -> Card:
    """Examine the fine-tunes and write the report.

    Raises:
        OtherBase: the fine-tunes do not share the base.
        SftknowError: models, facts or mastery table cannot be had. A part that fails by itself
            is missing in the report, with the reason.
    """
    bases = {name: base_of(request.asked.base, name) for name in request.finetuned}
    _check_shared(bases)
    first = request.finetuned[0]
    base = bases[first]
    material = material_for(request.asked, base.name, base.fingerprint, first)
    panels = _panels(request, material)
    examination = Examination(
        asked=request.asked,
        material=material,
        panels=panels,
        ratios=request.ratios,
        without=request.without,
    )
    several = tuple(
        examination.examine(bases[name], name, label, out / "models" / label, progress)
        for name, label in labels(request.finetuned).items()
    )
    progress("Comparing")
    findings = _found(request, material, panels, several)
    document = _document(findings)
    write_json(out / JSON_NAME, _as_json(findings, document.lead))
    _write(out / MARKDOWN_NAME, document.markdown())
    _write(out / PAGE_NAME, document.html())
    return Card(out / PAGE_NAME, tuple(document.lead))


def labels(names: Sequence[str]) -> dict[str, str]:
    """Return a short and unique label for each model."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"'{twice}' is given twice. Name each fine-tune once.")
    tails = {name: _tail(name).replace("/", "--") for name in names}
    counts = Counter(tails.values())
    reserved = {"base", "restored"}
    return {
        name: tail if counts[tail] == 1 and tail not in reserved else f"{tail}-{place}"
        for place, (name, tail) in enumerate(tails.items(), 1)
    }


def _tail(name: str) -> str:
    folder = Path(name).resolve()
    if not folder.is_dir():
        return name
    # Such folders are named by what they lie in.
    return folder.parent.name if folder.name in ("model", "adapter", "final") else folder.name


def _check_shared(bases: Mapping[str, Base]) -> None:
    found = {base.fingerprint: name for name, base in bases.items()}
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise OtherBase(
            f"'{one}' and '{other}' have different bases ('{bases[one].name}' and "
            f"'{bases[other].name}'), so their facts and strata cannot be compared. Make a report "
            "for each base."
        )


def _panels(request: CardRequest, material: Material) -> dict[str, Panel]:
    if not request.asked.quick:
        return {}
    wanted: list[Split] = [request.asked.split]
    if "restoration" not in request.without and "dev" not in wanted:
        wanted.append("dev")
    return {split: material.panel(split, request.asked.quick) for split in wanted}


def _found(
    request: CardRequest,
    material: Material,
    panels: Mapping[str, Panel],
    several: tuple[Examined, ...],
) -> Findings:
    from sftknow_eval.evaluation.statistics import compare_runs

    base = several[0].knowledge.base
    runs = {examined.label: examined.knowledge.finetuned for examined in several}
    reference = several[0].label if len(several) > 1 else None
    restored = {}
    for examined in several:
        part = examined.restoration.value
        if part is not None and part.chosen:
            restored[examined.label] = compare_runs(part.plain, {"restored": part.restored})
    panel = panels.get(request.asked.split)
    before = {o.fact_id: o for o in base}
    lost = {label: lost_share(before, outcomes, panel) for label, outcomes in runs.items()}
    comparison = compare_runs(base, runs, reference=reference)
    return Findings(request, material, panels, several, comparison, restored, lost)


def _document(findings: Findings) -> Document:
    several = findings.several
    names = ", ".join(examined.label for examined in several)
    return Document(
        title=f"What fine-tuning did to the knowledge of {names}",
        kicker="Report card" if len(several) == 1 else f"Report card of {len(several)} fine-tunes",
        lead=_lead(findings),
        opening=opening(several, findings.lost, findings.comparison),
        sections=_sections(findings),
    )


def _lead(findings: Findings) -> list[str]:
    panel = findings.request.asked.split in findings.panels
    lost = [lost_sentence(e.label, findings.lost[e.label], panel) for e in findings.several]
    if len(findings.several) > 1:
        return [extremes_sentence(findings.lost), *lost]
    (examined,) = findings.several
    pair = findings.comparison.pair(examined.label)
    told = [difference_sentence(found.mean, domain) for domain, found in pair.domains.items()]
    part = examined.restoration.value
    if part is not None:
        comparison = findings.restored.get(examined.label)
        told.append(card_weights.choice_sentence(part, comparison))
    return [*lost, *(sentence for sentence in told if sentence)]


def _sections(findings: Findings) -> list[Section]:
    several, material = findings.several, findings.material
    split = findings.request.asked.split
    facts = {fact.id: fact for fact in material.facts(split)}
    numbered = list(enumerate(several))
    headed = card_knowledge.headed

    def each(make: Callable[[int, Examined], list[Block]]) -> list[Block]:
        return [block for i, e in numbered for block in headed(several, e, make(i, e))]

    sections = [
        Section("examined", "What was examined", definitions(several, material, split)),
        Section(
            "strata",
            "Kept, lost and gained by mastery",
            each(lambda i, e: card_knowledge.by_stratum(e, findings.comparison, i)),
        ),
    ]
    if len(several) > 1:
        blocks = card_knowledge.side_by_side(several, findings.comparison)
        sections.append(Section("beside", "Side by side", blocks))
    if split in findings.panels:
        sections.append(
            Section("panel", "A quick look", panel_widths(several, findings.panels[split], split))
        )
    relation = each(lambda i, e: card_knowledge.by_relation(e, material.dataset, i))
    shown = each(lambda i, e: card_knowledge.examples(e, facts, i))
    curve = each(lambda i, e: card_weights.restoration(e, findings.restored.get(e.label), i))
    return [
        *sections,
        Section("relations", "By relation", relation),
        Section("examples", "Examples of facts", shown),
        Section("restoration", "Giving weights back", [*card_weights.together(several), *curve]),
        Section("tokens", "Token drift", each(lambda i, e: card_weights.tokens(e, i))),
        Section("weights", "Which weights moved", each(lambda i, e: card_weights.weights(e, i))),
        Section(
            "files",
            "The same as data",
            [
                Links(
                    [
                        (JSON_NAME, f"all numbers, in the format {FORMAT}"),
                        (MARKDOWN_NAME, "this report as Markdown, for a model card"),
                    ]
                )
            ],
        ),
    ]


def _as_json(findings: Findings, lead: Sequence[str]) -> dict[str, Any]:
    request, first = findings.request, findings.several[0]
    return {
        "format": FORMAT,
        "version": __version__,
        "summary": list(lead),
        "base": {"name": first.base.name, "fingerprint": first.base.fingerprint},
        "split": request.asked.split,
        "panel": {
            split: {"facts": len(panel.ids), "of": panel.total}
            for split, panel in findings.panels.items()
        }
        or None,
        "comparison": findings.comparison.as_json(),
        "models": [_model_json(examined, findings) for examined in findings.several],
    }


def _model_json(examined: Examined, findings: Findings) -> dict[str, Any]:
    part = examined.restoration
    restored = findings.restored.get(examined.label)
    curve = part.value and {
        "sweeps": {name: sweep["points"] for name, sweep in part.value.sweeps.items()},
        "chosen": part.value.chosen,
        "why": part.value.why,
        "restored_beside_plain": restored.as_json() if restored else None,
    }
    return {
        "name": examined.name,
        "label": examined.label,
        "nature": examined.nature,
        "base_from": examined.base.origin,
        "base_check": examined.base.check,
        "lost": findings.lost[examined.label].as_json(),
        "results": examined.knowledge.summary,
        "token_drift": examined.tokens.value,
        "weights": examined.weights.value,
        "restoration": curve,
        "missing": {
            name: why
            for name, why in (
                ("token_drift", examined.tokens.missing),
                ("weights", examined.weights.missing),
                ("restoration", part.missing),
            )
            if why
        },
    }


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
