"""The pages of a site besides those of rows: boards, comparisons, and what readers should know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sftknow_eval.leaderboard.base_store import BaseStore
from sftknow_eval.leaderboard.columns import COLUMNS
from sftknow_eval.leaderboard.rows import Board, RankingTable, Row
from sftknow_eval.leaderboard.site import board_table, charts, exports, page_tables, paper
from sftknow_eval.leaderboard.site.names import (
    STATUS_WORDS,
    board_page,
    exports_of,
    facts_file,
    outcomes_file,
    row_page,
    table_slug,
    title_in,
)
from sftknow_eval.leaderboard.site.outcomes import RowFacts, has_answers, row_facts
from sftknow_eval.leaderboard.site.pairs import Pair
from sftknow_eval.leaderboard.site.questions import QUESTIONS
from sftknow_eval.leaderboard.site.row_page import row_context
from sftknow_eval.pages.bundle import CHART_SCRIPTS, Asset, theme
from sftknow_eval.pages.render import Pages

HERE = Path(__file__).parent
FRONT_LIMIT = 25
FRONT_BOARDS = 4
VENDORED_SCRIPTS = (*CHART_SCRIPTS, "datatables.js", "theme.js")
_OWN = ("site.css", "board.js", "compare.js")

Make = Callable[[], str]


class SitePages:
    """Renders the pages of a site."""

    def __init__(self) -> None:
        folders = {".css": HERE, ".js": HERE / "scripts"}
        self._own = [
            Asset(name, (folders[Path(name).suffix] / name).read_text(encoding="utf-8"))
            for name in _OWN
        ]
        self._pages = Pages([HERE / "templates"], site=True, extra=self._own)

    def assets(self) -> list[Asset]:
        """Return style sheets and our own scripts."""
        return [theme(), *self._own]

    def row(
        self, row: Row, tables: Sequence[RankingTable], store: BaseStore, facts: RowFacts
    ) -> str:
        """Return the page of a row."""
        context = row_context(row, tables, store, facts)
        title = f"{row.title} · {store.info.id}"
        return self._page("row.html", title, "../../", **context)

    def board(
        self,
        table: RankingTable,
        cells: Mapping[str, str],
        siblings: Sequence[RankingTable],
        board: Board,
        ahead: Sequence[Pair],
    ) -> Make:
        """Return how to make the page of a table."""

        def make() -> str:
            figures = charts.board_figures(table)
            if over := charts.over_n(siblings):
                figures.append(over)
            groups = board_table.groups()
            csv, data = exports_of(table)
            return self._page(
                "board.html",
                f"{table.base}, {table.regime_label}",
                "../",
                scripts=("datatables.js", "board.js", *(CHART_SCRIPTS if figures else ())),
                table=table,
                slug=table_slug(table),
                base_name=board.bases[table.base].info.name,
                groups=groups,
                head=board_table.head_label,
                lines=board_table.lines(table, cells),
                statuses=sorted({STATUS_WORDS[row.status] for row in table.rows}),
                figures=figures,
                pairs=[_pair_link(pair) for pair in ahead],
                csv=f"../{csv}",
                json=f"../{data}",
            )

        return make

    def pair(self, pair: Pair, board: Board) -> Make:
        """Return how to make the page that compares two rows."""

        def make() -> str:
            store, table = board.bases[pair.table.base], pair.table
            first, second = row_facts(pair.first, store), row_facts(pair.second, store)
            return self._page(
                "pair.html",
                f"{pair.first.title} and {pair.second.title}",
                "../",
                board={
                    "href": board_page(table),
                    "slug": table_slug(table),
                    "label": f"{table.base}, {table.regime_label}",
                },
                first=_row_link(pair.first),
                second=_row_link(pair.second),
                counts=page_tables.counts_table(first, second, store),
                differences=page_tables.differences_table(pair, first, second, store),
            )

        return make

    def index(self, board: Board) -> Make:
        """Return how to make the first page."""
        rows = [row for row in board.rows().values() if row.entry]

        def make() -> str:
            return self._page(
                "index.html",
                "Fine-tuning leaderboard: what fine-tuning costs in knowledge",
                here="index.html",
                description="Ways of fine-tuning language models, by the knowledge they cost.",
                n_rows=len(rows),
                n_ranked=sum(row.ranked for row in rows),
                n_reproduced=sum(row.status == "reproduced" for row in rows),
                n_recomputed=sum(row.status == "recomputed" for row in rows),
                limit=FRONT_LIMIT,
                boards=[_front(table, board) for table in _largest_first(board)],
                shown=FRONT_BOARDS,
            )

        return make

    def compare(self, board: Board, pairs: Sequence[Pair]) -> Make:
        """Return how to make the page that compares any two rows."""
        data = [_choice(table) for table in board.tables]
        choices = [entry for entry in data if len(entry["rows"]) > 1]

        def make() -> str:
            return self._page(
                "compare.html",
                "Compare two rows",
                here="compare.html",
                scripts=("compare.js",),
                pairs=[_pair_link(pair) for pair in pairs],
                boards_json=script_json(choices),
            )

        return make

    def texts(self, board: Board) -> Iterator[tuple[str, Make]]:
        """Yield the pages of words, by name, with how to make each."""
        tables = paper.read_tables()
        yield (
            "method.html",
            lambda: self._page("method.html", "Method", here="method.html", columns=COLUMNS),
        )
        yield (
            "faq.html",
            lambda: self._page("faq.html", "Questions", here="faq.html", questions=QUESTIONS),
        )
        yield (
            "rules.html",
            lambda: self._page(
                "rules.html",
                "Rules",
                here="rules.html",
                refused=page_tables.refused_table(board),
                withdrawn=page_tables.withdrawn_table(board),
            ),
        )
        yield (
            "paper.html",
            lambda: self._page(
                "paper.html",
                "The paper's own figures: reported, not recomputed",
                here="paper.html",
                scripts=CHART_SCRIPTS,
                tables=paper.paper_tables(tables),
                curve=paper.paper_curve(tables),
            ),
        )
        yield "exports/paper.csv", lambda: paper.paper_csv(tables)
        yield (
            "downloads.html",
            lambda: self._page(
                "downloads.html",
                "Downloads",
                here="downloads.html",
                schema=exports.EVERY_EVAL_EVER,
                files=page_tables.download_table(board),
            ),
        )

    def _page(
        self, template: str, title: str, root: str = "", *, here: str = "", **context: Any
    ) -> str:
        return self._pages.page(template, title=title, root=root, here=here, **context)


def script_json(value: Any) -> Markup:
    """Return JSON that can stand in a script element."""
    text = json.dumps(value, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _largest_first(board: Board) -> list[RankingTable]:
    return sorted(board.tables, key=lambda table: -sum(not row.control for row in table.rows))


def _front(table: RankingTable, board: Board) -> dict[str, Any]:
    return {
        "href": board_page(table),
        "base": table.base,
        "regime": table.regime_label,
        "name": board.bases[table.base].info.name,
        "n": sum(not row.control for row in table.rows),
        "table": board_table.short_table(table, FRONT_LIMIT),
    }


def _choice(table: RankingTable) -> dict[str, Any]:
    return {
        "slug": table_slug(table),
        "label": f"{table.base}, {table.regime_label}",
        "facts": facts_file(table.version, table.base),
        "rows": [
            {"id": row.id, "title": row.title, "file": outcomes_file(row.id)}
            for row in table.rows
            if has_answers(row)
        ],
    }


def _row_link(row: Row) -> dict[str, str]:
    return {"id": row.id, "title": row.title, "href": row_page(row)}


def _pair_link(pair: Pair) -> dict[str, str]:
    label = f"{pair.table.base}, {pair.table.regime_label}"
    names = {
        "first": title_in(pair.table, pair.first),
        "second": title_in(pair.table, pair.second),
    }
    return {"href": pair.href, "board": label, **names}
