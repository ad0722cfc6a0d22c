"""What a row's page says: numbers, seeds, examples, provenance, evidence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.columns import BY_KEY, COLUMNS
from sftknow_eval.leaderboard.entry import Entry
from sftknow_eval.leaderboard.manifest import Manifest
from sftknow_eval.leaderboard.rows import RankingTable, Row
from sftknow_eval.leaderboard.site.names import (
    CONTROL_WORDS,
    STATUS_WORDS,
    board_page,
    interval,
    number,
    table_slug,
)
from sftknow_eval.leaderboard.site.outcomes import Example, RowFacts, examples, has_answers
from sftknow_eval.mastery.table import N_STRATA
from sftknow_eval.pages.tables import MISSING, Cell, Column, Table

_STATUS_MEANING = {
    "self_reported": "Submitted; not everything that is needed to recompute it is there.",
    "recomputed": "Every number here was recomputed from the evidence.",
    "reproduced": "A maintainer ran it again, and it agreed within the stated bounds.",
    "withdrawn": "It no longer stands; the rules page has the reason.",
}
_UNITS = {"share": "%", "nats": " nats", "count": "", "hours": " h"}
_DOMAINS = {"id": "In-domain (ID)", "ood": "Out-of-domain (OOD)"}


def row_context(
    row: Row, tables: Sequence[RankingTable], store: BaseStore, facts: RowFacts
) -> dict[str, Any]:
    """Return what the template of a row's page needs."""
    manifest = row.manifest
    found = examples(facts, store) if has_answers(row) else {}
    shows = row.control != "base"
    return {
        "row": row,
        "m": manifest,
        "base_id": store.info.id,
        "regime": manifest.regime.label if manifest else "all regimes of this base",
        "status": STATUS_WORDS[row.status],
        "status_meaning": _STATUS_MEANING[row.status],
        "control": CONTROL_WORDS[row.control] if row.control else "",
        "boards": [
            {
                "href": board_page(table),
                "slug": table_slug(table),
                "label": f"{table.base}, {table.regime_label}",
            }
            for table in tables
        ],
        "comparable": has_answers(row),
        "tiles": list(_tiles(row)),
        "plots": list(_plots(row)),
        "numbers": _numbers(row),
        "lost": _examples("lost", found.get("lost", [])) if shows else None,
        "gained": _examples("gained", found.get("gained", [])) if shows else None,
        "again": _again(manifest) if manifest else "",
        "evidence": list(_evidence(row.entry)) if row.entry else [],
        "provenance": list(_provenance(manifest, store)) if manifest else [],
        "seeds": _seeds(manifest) if manifest else None,
        "config": manifest.config.model_dump_json(indent=2) if manifest and manifest.config else "",
    }


def _tiles(row: Row) -> Iterator[dict[str, str]]:
    for key in ("id", "ood", "lost", "gained", "token_drift", "restored_share"):
        found, column = row.measures[key], BY_KEY[key]
        if found.value is not None:
            between = interval(key, found)
            value = number(key, found.value) + _UNITS[column.unit]
            name = {"id": "ID mean", "ood": "OOD mean"}.get(key, column.label)
            yield {"value": value, "name": name, "between": between}


def _plots(row: Row) -> Iterator[dict[str, Any]]:
    for domain, title in _DOMAINS.items():
        lines = []
        for stratum in range(N_STRATA):
            found = row.measures[f"{domain}_{stratum}"]
            if found.value is None:
                continue
            low, high = found.low, found.high
            lines.append(
                {
                    "stratum": stratum,
                    "value": f"{100 * found.value:.1f}",
                    "x": _x(found.value),
                    "low": None if low is None else _x(low),
                    "high": None if high is None else _x(high),
                }
            )
        if lines:
            yield {"title": title, "lines": lines}


def _x(share: float) -> float:
    return round(70 + 250 * share, 1)


def _numbers(row: Row) -> Table:
    cells = []
    for column in COLUMNS:
        found = row.measures[column.key]
        if found.value is None:
            continue
        seeds = ", ".join(number(column.key, value) for value in found.seeds)
        cells.append(
            [
                Cell(column.label, title=column.meaning),
                Cell(number(column.key, found.value) + _UNITS[column.unit]),
                Cell(interval(column.key, found) or MISSING),
                Cell(seeds or MISSING),
                Cell("declared" if column.declared else found.method or MISSING, tone="muted"),
            ]
        )
    heads = [Column("Column", False), Column("Value"), Column("95% interval")]
    heads += [Column("By seed", False), Column("How", False)]
    return Table("numbers", "All numbers of this row", heads, cells)


def _examples(kind: str, found: Sequence[Example]) -> Table | None:
    if not found:
        return None
    caption = {
        "lost": "Facts that the base knows, and all seeds lost",
        "gained": "Facts that the base does not know, and all seeds gained",
    }[kind]
    heads = [Column(label, False) for label in ("Question", "Accepted answer", "Stratum")]
    heads += [Column("The base", False), Column("This row", False)]
    cells = [
        [
            *map(Cell, (e.question, e.answer, str(e.stratum), e.base or "(nothing)")),
            Cell(e.row or "(nothing)", tone="bad" if kind == "lost" else "good"),
        ]
        for e in found
    ]
    return Table(kind, caption, heads, cells)


def _again(manifest: Manifest) -> str:
    base = manifest.base
    if manifest.track == "strategy":
        options = ["--base", base.name, "--by", "NAME", "--out", "rerun"]
        return shlex.join(["sftknow", "board", "reproduce", manifest.row, *options])
    table = f"leaderboard/mastery/{base.id}/mastery.parquet"
    options = ["--base", base.name, "--mastery", table, "--out", "rerun"]
    return shlex.join(["sftknow", "eval", manifest.seeds[0].weights.name, *options])


def evidence_files(entry: Entry) -> list[str]:
    """Return the files of a submission that its page offers, by their place in its folder."""
    return [name for name in entry.files if not name.startswith("training/")]


def _evidence(entry: Entry) -> Iterator[tuple[str, str]]:
    words = {"manifest.json": "the manifest", "evidence": "answers to each fact, seed"}
    words["recipes"] = "the restoration recipe, seed"
    for name in evidence_files(entry):
        folder, _, file = name.rpartition("/")
        seed = f" {file.partition('-')[2].partition('.')[0]}" if folder else ""
        yield name, f"{name}: {words[folder or name]}{seed}"
    yield "every_eval_ever.json", "every_eval_ever.json: this row for Every Eval Ever"
    yield "eval_results.yaml", "eval_results.yaml: for a model repository's .eval_results folder"


def _provenance(manifest: Manifest, store: BaseStore) -> Iterator[tuple[str, str]]:
    base, asking, data = manifest.base, manifest.asking, manifest.training_data
    yield "Row", manifest.row
    yield "Track", manifest.track
    yield "Base", f"{base.name}{f' at {base.revision}' if base.revision else ''}"
    yield "Base's weights", base.fingerprint
    yield "Mastery table", base.mastery
    yield "Facts asked", f"{len(store.ids):,} in the base's store; digest {asking.documents}"
    yield "Asked", f"{asking.style} prompts, {asking.num_fewshot} shots, {asking.split} split"
    yield "Engine", f"{asking.backend}, {asking.dtype}"
    yield "Versions", ", ".join(f"{name} {v}" for name, v in sorted(asking.versions.items()))
    yield "Training data", data.declaration
    yield "Test facts in it", data.test_facts
    yield "Licence", manifest.licence
    yield "Contact", manifest.contact
    yield "Made", f"{manifest.created} with sftknow-eval {manifest.sftknow}"


def _seeds(manifest: Manifest) -> Table:
    heads = [Column("Seed", False), Column("Model", False), Column("Weights", False)]
    heads += [Column("Evidence (SHA-256)", False), Column("Recipe", False)]
    cells = [
        [
            Cell(str(run.seed)),
            Cell(run.weights.name, run.weights.revision or ""),
            Cell(run.weights.fingerprint[:16], title=run.weights.fingerprint),
            _digest(run.evidence),
            _digest((run.recipe.digest or run.recipe.mask) if run.recipe else None),
        ]
        for run in manifest.seeds
    ]
    return Table("seeds", "Seeds, with digests (the manifest has them in full)", heads, cells)


def _digest(found: str | None) -> Cell:
    return Cell(found[:16], title=found) if found else Cell(MISSING, title="none")
