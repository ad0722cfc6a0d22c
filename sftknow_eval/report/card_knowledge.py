"""The report card's sections on what was kept, lost and gained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftknow_eval.evaluation.compare import transition
from sftknow_eval.evaluation.results import Share
from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.tables import Cell, Column, Table, share
from sftknow_eval.report import card_charts as charts
from sftknow_eval.report.document import Block, Figures, Heading, Paragraph, Tabled
from sftknow_eval.report.words import DOMAINS, count, estimate, p_value

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Comparison
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.facts import Fact
    from sftknow_eval.report.examine import Examined

EXAMPLES = 3
_KINDS = ("lost", "gained", "kept")


def by_stratum(examined: Examined, comparison: Comparison, place: int) -> list[Block]:
    """Return the table and the charts of one fine-tune by stratum."""
    summary, pair = examined.knowledge.summary, comparison.pair(examined.label)
    blocks: list[Block] = []
    for domain, found in pair.domains.items():
        rows = [
            [Cell(str(s)), *_transition_cells(cell)]
            for s, cell in enumerate(found.strata)
            if cell.counts.n
        ]
        rows.append([Cell("mean"), *_transition_cells(found.mean)])
        columns = [
            Column("stratum", numeric=False),
            *map(Column, ("facts", "base", "fine-tune", "difference", "p (Holm)")),
            *map(Column, ("kept", "lost", "gained", "neither", "lost of known")),
        ]
        caption = (
            f"{examined.label}, {DOMAINS[domain]}: percent of facts answered, and facts by what "
            "became of them"
        )
        note = (
            "Percent with 95% intervals. Lost: the base knows it, the fine-tune answers wrongly; "
            "gained: the reverse. p: McNemar, for the mean sign flips by subject; adjusted by Holm."
        )
        name = f"strata-{place}-{domain}"
        blocks.append(Tabled(Table(name, caption, columns, rows, note=note)))
    return [*blocks, Figures(_figures(examined, summary, place))]


def _transition_cells(cell: Any) -> list[Cell]:
    counts = cell.counts
    return [
        *(count(counts.n), estimate(cell.other), estimate(cell.accuracy)),
        *(estimate(cell.difference, signed=True), p_value(cell.p_holm)),
        *(count(counts.kept), count(counts.lost), count(counts.gained), count(counts.unknown)),
        estimate(cell.lost_of_known),
    ]


def _figures(examined: Examined, summary: Mapping[str, Any], place: int) -> list[Figure]:
    figures = []
    for domain, name in DOMAINS.items():
        cells = summary["transitions"][domain]["strata"]
        if not any(cell["n"] for cell in cells):
            continue
        words = charts.spoken(
            {
                f"stratum {s}, percent lost of all": 100 * cell["lost"] / cell["n"]
                for s, cell in enumerate(cells)
                if cell["n"]
            }
        )
        figures.append(
            Figure(
                f"transitions-{place}-{domain}",
                f"{examined.label}: what became of the {name} facts",
                words,
                charts.transitions_chart(cells),
            )
        )
        scores = {
            "base": summary["scores"]["base"][domain]["alias_acc"]["strata"],
            examined.label: summary["scores"]["finetuned"][domain]["alias_acc"]["strata"],
        }
        means = {
            f"{model}, stratum {s}": None if cell["value"] is None else 100 * cell["value"]
            for model, strata in scores.items()
            for s, cell in enumerate(strata)
        }
        figures.append(
            Figure(
                f"accuracy-{place}-{domain}",
                f"{examined.label}: {name} accuracy by stratum",
                charts.spoken(means),
                charts.accuracy_chart(scores),
            )
        )
    return figures


def by_relation(examined: Examined, dataset: Dataset, place: int) -> list[Block]:
    """Return the table and the chart of one fine-tune by relation."""
    base = {o.fact_id: o.recalled for o in examined.knowledge.base}
    groups: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for o in examined.knowledge.finetuned:
        groups[o.relation].append((base[o.fact_id], o.recalled))
    entries = [_relation_entry(dataset, name, pairs) for name, pairs in groups.items()]
    entries.sort(key=lambda e: (-(e["value"] if e["value"] is not None else -1), e["label"]))
    rows = [
        [
            Cell(entry["label"], entry["id"]),
            Cell(DOMAINS[entry["domain"]]),
            *(count(entry["n"]), share(entry["base"]), share(entry["finetuned"])),
            *(count(entry["known"]), count(entry["lost"]), share(entry), count(entry["gained"])),
        ]
        for entry in entries
    ]
    columns = [
        *(Column("relation", numeric=False), Column("domain", numeric=False)),
        *map(Column, ("facts", "base", "fine-tune", "known", "lost", "lost of known", "gained")),
    ]
    caption = f"{examined.label} by relation, most lost first"
    note = "Percent with 95% Wilson intervals. Known: facts that the base answers."
    told = [entry for entry in entries if entry["value"] is not None]
    figure = Figure(
        f"relations-{place}",
        f"{examined.label}: share lost of the known facts, by relation",
        charts.spoken({entry["label"]: 100 * entry["value"] for entry in told}),
        charts.relations_chart(told),
    )
    table = Tabled(Table(f"relations-{place}-table", caption, columns, rows, note=note))
    return [table, Figures([figure])] if told else [table]


def _relation_entry(
    dataset: Dataset, name: str, pairs: Sequence[tuple[bool, bool]]
) -> dict[str, Any]:
    relation = dataset.relations[name]
    known = sum(before for before, _ in pairs)
    lost = sum(before and not after for before, after in pairs)
    return {
        **{"id": name, "label": relation.label, "domain": relation.domain, "n": len(pairs)},
        "base": Share(known, len(pairs)).as_json(),
        "finetuned": Share(sum(after for _, after in pairs), len(pairs)).as_json(),
        **{"known": known, "lost": lost, **Share(lost, known).as_json()},
        "gained": sum(after and not before for before, after in pairs),
        "n": len(pairs),
    }


def examples(examined: Examined, facts: Mapping[str, Fact], place: int) -> list[Block]:
    """Return examples of facts lost, gained and kept, from as many strata as there are."""
    base = {o.fact_id: o for o in examined.knowledge.base}
    groups: defaultdict[str, defaultdict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for o in sorted(examined.knowledge.finetuned, key=lambda o: facts[o.fact_id].digest()):
        groups[transition(base[o.fact_id].recalled, o.recalled)][o.stratum].append(o)
    columns = [
        *(Column("question", numeric=False), Column("stratum"), Column("answer", numeric=False)),
        *(Column("the base completed", numeric=False), Column("the fine-tune", numeric=False)),
    ]
    blocks: list[Block] = []
    for kind in _KINDS:
        chosen = [o for s in sorted(groups[kind], reverse=True) for o in groups[kind][s][:EXAMPLES]]
        rows = [
            [
                *(Cell(facts[o.fact_id].question), count(o.stratum)),
                *(Cell(facts[o.fact_id].answer), Cell(_short(base[o.fact_id].output))),
                Cell(_short(o.output)),
            ]
            for o in chosen
        ]
        total = sum(map(len, groups[kind].values()))
        if not rows:
            blocks.append(Paragraph(f"{examined.label}: no fact was {kind}.", "note"))
            continue
        # Captions name regions of the page, so that those of two fine-tunes must differ.
        caption = (
            f"{examined.label}, {kind}: {len(rows)} of {total} facts, of every stratum the "
            f"first {EXAMPLES}"
        )
        table = Table(f"examples-{place}-{kind}", caption, columns, rows)
        blocks.append(Tabled(table, words=True))
    return blocks


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


def side_by_side(several: Sequence[Examined], comparison: Comparison) -> list[Block]:
    """Return the paired comparison of several fine-tunes, with the base and with the first."""
    blocks: list[Block] = []
    columns = [
        *(Column("fine-tune", numeric=False), Column("facts"), Column("accuracy")),
        *map(Column, ("difference", "p (Holm)", "lost of known", "gained of unknown")),
    ]
    first = several[0].label
    for against, others in (("base", several), (first, several[1:])):
        than = "the base" if against == "base" else against
        for domain, name in DOMAINS.items():
            rows = []
            for examined in others:
                found = comparison.pair(examined.label, against).domains.get(domain)  # type: ignore[call-overload]
                if found is not None:
                    rows.append([Cell(examined.label), *_side_cells(found)])
            if not rows:
                continue
            caption = f"{name.capitalize()}, beside {than}: the same facts, paired"
            note = (
                "Accuracy is the mean of the strata. Difference, lost and gained are beside "
                f"{than}, with 95% intervals; p by sign flips over subjects, adjusted by Holm."
            )
            ident = f"beside-{'base' if against == 'base' else 'first'}-{domain}"
            blocks.append(Tabled(Table(ident, caption, columns, rows, note=note)))
    return blocks


def _side_cells(found: Any) -> list[Cell]:
    mean, pooled = found.mean, found.pooled
    return [
        *(count(pooled.counts.n), estimate(mean.accuracy)),
        *(estimate(mean.difference, signed=True), p_value(mean.p_holm)),
        *(estimate(pooled.lost_of_known), estimate(pooled.gained_of_unknown)),
    ]


def headed(several: Sequence[Examined], examined: Examined, blocks: list[Block]) -> list[Block]:
    """Return blocks under the fine-tune's name, where there are several."""
    return [Heading(examined.label), *blocks] if len(several) > 1 else blocks
