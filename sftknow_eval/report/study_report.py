"""A study beside the paper: the counterpart of each of its tables and result figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftknow_eval import __version__
from sftknow_eval.artifacts import atomic_path, write_json
from sftknow_eval.pages.tables import Cell, Column, Table
from sftknow_eval.report import study_charts, study_tables, study_weights
from sftknow_eval.report.document import (
    Block,
    Definitions,
    Document,
    Figures,
    Links,
    Paragraph,
    Section,
    Tabled,
)
from sftknow_eval.report.effects import Finding
from sftknow_eval.report.findings import findings
from sftknow_eval.report.study_read import Study
from sftknow_eval.report.words import count

FORMAT = "sftknow-study-report/1"
PAGE_NAME, JSON_NAME, MARKDOWN_NAME = "index.html", "report.json", "report.md"

_TEST_BED = (
    "A mini-world is a test bed: it shows that the measurement works, on a model of about a "
    "million weights and invented facts, and is no evidence about large models. The paper's values "
    "stand beside it to compare the method, not to be reached."
)


def study_report(study_folder: Path, out: Path) -> Path:
    """Write a study's report: `index.html`, `report.json` and `report.md`; return the page.

    Args:
        study_folder: holds `study.json` and what it names.
        out: folder for the report.

    Raises:
        DataError: the folder holds no study, or files of it are not readable.
    """
    study = Study(study_folder)
    found = findings(study)
    document = _document(study, found, out)
    write_json(out / JSON_NAME, _as_json(study, found, document))
    for name, text in ((MARKDOWN_NAME, document.markdown()), (PAGE_NAME, document.html())):
        with atomic_path(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return out / PAGE_NAME


def _document(study: Study, found: Sequence[Finding], out: Path) -> Document:
    title = study.record.get("title") or study.record["name"]
    opening: list[Block] = [Tabled(study_tables.findings_table(found), words=True)]
    if any(base.get("world_seed") is not None for base in study.bases):
        opening.insert(0, Paragraph(_TEST_BED, "callout"))
    if not study.record.get("finished"):
        opening.insert(0, Paragraph("The study is not finished: parts are missing.", "warn"))
    return Document(str(title), "Study", _lead(found), opening, _sections(study, found, out))


def _lead(found: Sequence[Finding]) -> list[str]:
    kinds: list[str] = [effect.verdict for finding in found for effect in finding.effects]
    if not kinds:
        return ["The study holds no runs that the paper's findings could be tried on."]
    names = ("shown", "not shown", "cannot tell")
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in names)
    whole = [finding.claim for finding in found if finding.verdict == "shown"]
    missing = [finding.claim for finding in found if finding.verdict == "not shown"]
    lead = [
        f"Of {len(kinds)} effects that the paper's {len(found)} findings amount to here: {counts}."
    ]
    lead += [f"Shown: {claim}." for claim in whole]
    return [*lead, *(f"Not shown: {claim}." for claim in missing)]


def _sections(study: Study, found: Sequence[Finding], out: Path) -> list[Section]:
    return [
        _section(
            "sizes",
            "Accuracy over training facts (Table 2 and figures)",
            [*_second_table(study)],
            study_charts.over_sizes(study),
        ),
        _section(
            "drift",
            "Token drift (figures)",
            [],
            study_charts.token_drift(study),
        ),
        _section(
            "strategies",
            "Strategies and controls (Table 7)",
            [*study_tables.strategies(study), *study_tables.controls(study)],
        ),
        _section(
            "restoration",
            "Giving weights back (Tables 4, 6 and 11, figures)",
            [
                *study_weights.restoration(study),
                *study_weights.training_set(study),
                *study_weights.layer_ranges(study),
            ],
            study_charts.restoration(study),
        ),
        _section("other", "Other tasks (Table 5)", study_weights.other_tasks(study)),
        _section(
            "moved",
            "Which weights moved (Tables 3, 9 and 10, figure)",
            [*study_weights.concentration(study), *study_weights.places(study)],
            study_charts.concentration(study),
        ),
        _section(
            "strata",
            "Facts by stratum (Tables 1 and 8)",
            [*study_tables.strata_counts(study), study_tables.paper_strata()],
        ),
        Section("effects", "Each effect that was tried", _effects(found)),
        Section("study", "The study", _about(study, out)),
    ]


def _second_table(study: Study) -> list[Table]:
    tables = []
    for place, base in enumerate(study.bases):
        # The paper's table has a second base; further ones stand beside that.
        model = "LLaMA-3-8B" if place == 0 else "LLaMA-3-70B"
        if study.large is not None:
            ident = f"table-2-{base['id']}" if place else "table-2"
            tables += study_tables.accuracy(study, base["id"], ident, model)
    return tables


def _section(
    ident: str, title: str, tables: Sequence[Table], figures: Sequence[Any] = ()
) -> Section:
    blocks: list[Block] = [Figures(figures)] if figures else []
    blocks += [Tabled(table) for table in tables]
    if not blocks:
        blocks.append(Paragraph("Missing: the study holds no runs of this kind.", "warn"))
    return Section(ident, title, blocks)


def _effects(found: Sequence[Finding]) -> list[Block]:
    blocks: list[Block] = []
    for finding in found:
        if finding.effects:
            blocks.append(Tabled(study_tables.effects_table(finding), words=True))
        else:
            text = f"{finding.claim}: missing, as the study holds no runs of this kind."
            blocks.append(Paragraph(text, "warn"))
    return blocks


def _about(study: Study, out: Path) -> list[Block]:
    pairs = [
        (f"Base {base['id']}", f"{base['name']}; weights {base['fingerprint'][:16]}")
        for base in study.bases
    ]
    pairs.append(("Runs", f"{len(study.record['runs']) - len(study.not_done())} finished"))
    if (seconds := (study.record.get("costs") or {}).get("cpu_seconds")) is not None:
        pairs.append(("Cost", f"{seconds:,.0f} CPU-seconds"))
    versions = study.record.get("versions") or {}
    pairs.append(("Versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    blocks: list[Block] = [Definitions(pairs)]
    if study.not_done():
        rows = [
            [Cell(run["id"]), Cell(run["status"]), Cell(run["reason"] or "")]
            for run in study.not_done()
        ]
        columns = [Column(name, numeric=False) for name in ("run", "status", "why")]
        table = Table("left-out", "Runs that were left out or failed", columns, rows)
        blocks.append(Tabled(table, words=True))
    if families := _families(study):
        blocks.append(Tabled(families))
    files = [(JSON_NAME, "all tables and effects"), (MARKDOWN_NAME, "this report as Markdown")]
    named = [("study.json", "the study's runs and their files")]
    if study.record.get("comparison"):
        named.append((study.record["comparison"], "all paired comparisons and their statistics"))
    files += [(os.path.relpath(study.root / name, out), what) for name, what in named]
    return [*blocks, Links(files)]


def _families(study: Study) -> Table | None:
    """Return how many tests there are, and how many hold after Holm's adjustment."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for entry in study.comparison.get("comparisons", ()):
        for family in entry["comparison"]["families"]:
            other = "the base" if family["against"] == "base" else "another run of the same facts"
            held = counts.setdefault((other, family["domain"], family["level"]), [0, 0])
            held[0] += family["tests"]
            held[1] += family["significant"]
    if not counts:
        return None
    names = {"strata": "each stratum", "all": "all facts", "mean": "mean of the strata"}
    rows = [
        [Cell(other), Cell(domain.upper()), Cell(names[level]), count(tests), count(below)]
        for (other, domain, level), (tests, below) in counts.items()
    ]
    columns = [
        *(Column(name, numeric=False) for name in ("beside", "domain", "of")),
        *(Column("tests"), Column("p < 0.05 after Holm")),
    ]
    note = "Families: all runs of one cell set against the same other, in one domain and level."
    return Table("families", "Paired tests, adjusted by Holm", columns, rows, note=note)


def _as_json(study: Study, found: Sequence[Finding], document: Document) -> dict[str, Any]:
    blocks = [*document.opening, *(block for s in document.sections for block in s.blocks)]
    tables = {b.table.id: b.table.as_json() for b in blocks if isinstance(b, Tabled)}
    figures = {
        figure.id: {"title": figure.title, "text": figure.text}
        for block in blocks
        if isinstance(block, Figures)
        for figure in block.figures
    }
    return {
        "format": FORMAT,
        "version": __version__,
        "study": study.record["name"],
        "config_digest": study.record.get("config_digest"),
        "summary": list(document.lead),
        "findings": [
            {
                "id": finding.id,
                "claim": finding.claim,
                "source": finding.source,
                "verdict": finding.verdict,
                "effects": [effect.as_json() for effect in finding.effects],
            }
            for finding in found
        ],
        "tables": tables,
        "figures": figures,
    }
