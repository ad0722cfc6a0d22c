"""Build the site: every page of a board, the data its scripts load, and the downloads.

Only what changed is made again: each file knows the digest of what it was made from.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sftknow_eval import __version__
from sftknow_eval.artifacts import digest, locked
from sftknow_eval.leaderboard.ranking import board as ranked_board
from sftknow_eval.leaderboard.rows import Board, RankingTable, Row
from sftknow_eval.leaderboard.site import exports, pages, pairs
from sftknow_eval.leaderboard.site.collecting import collecting_nothing
from sftknow_eval.leaderboard.site.files import SiteFolder
from sftknow_eval.leaderboard.site.names import (
    board_page,
    exports_of,
    facts_file,
    outcomes_file,
    row_page,
    row_slug,
)
from sftknow_eval.leaderboard.site.outcomes import (
    facts_script,
    has_answers,
    outcomes_script,
    row_facts,
)
from sftknow_eval.leaderboard.site.pieces import RowPieces
from sftknow_eval.leaderboard.site.row_page import evidence_files
from sftknow_eval.pages import bundle
from sftknow_eval.pages.drawings import drawings_kept
from sftknow_eval.pages.render import ASSET_FOLDER

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Built:
    """A site that was built.

    Attributes:
        board: what it shows.
        written: files made in this build.
        kept: files taken over from the build before.
    """

    site: Path
    board: Board
    written: int
    kept: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a build may be told.

    Attributes:
        dataset: id of the benchmark's dataset on the Hugging Face Hub, for `.eval_results`.
        address: where the site will be public, for links in exports.
        fresh: make every file again.
    """

    dataset: str = "sftknow/entity-questions"
    address: str | None = None
    fresh: bool = False


def build(root: Path, out: Path, options: Options | None = None) -> Built:
    """Build the site of a leaderboard's folder into `out`, which it replaces as a whole.

    Verdicts on submissions are kept beside `out`, in `.NAME.cache`: what did not change is not
    judged again.

    Raises:
        SubmissionError: `root` is not a leaderboard's folder.
        SettingsError: `out` holds something that is not a site, or is being built by another.
    """
    options, out = options or Options(), out.absolute()
    cache = out.with_name(f".{out.name}.cache")
    fresh, made_by = options.fresh, digest([_code(), options.dataset, options.address])
    with (
        locked(cache),
        collecting_nothing(),
        drawings_kept(cache / "drawings"),
        SiteFolder(out, fresh=fresh) as folder,
        RowPieces(cache, made_by, fresh) as pieces,
    ):
        shown = ranked_board(root, cache, fresh=fresh)
        _Site(folder, shown, options, pieces, made_by).write()
    return Built(out, shown, folder.written, folder.kept)


class _Site:
    """Writes the files of one site."""

    def __init__(
        self, folder: SiteFolder, board: Board, options: Options, pieces: RowPieces, made_by: str
    ) -> None:
        self._folder, self._board, self._options = folder, board, options
        self._pages = pages.SitePages()
        self._code = made_by
        self._tables: dict[str, list[RankingTable]] = defaultdict(list)
        for table in board.tables:
            for row in table.rows:
                self._tables[row.id].append(table)
        self._lines: dict[int, str] = {}
        self._rows = board.rows()
        self._infos = {name: store.info.model_dump_json() for name, store in board.bases.items()}
        self._pieces = {row.id: pieces.of(row, self._context(row)) for row in self._rows.values()}
        self._texts = {name: made.text for name, made in self._pieces.items()}

    def write(self) -> None:
        """Write everything."""
        self._assets()
        for row in self._rows.values():
            self._row(row)
        for base in sorted({(table.version, table.base) for table in self._board.tables}):
            store = self._board.bases[base[1]]
            key = digest([self._code, self._infos[base[1]]])
            self._folder.text(facts_file(*base), key, functools.partial(facts_script, store))
        for name, key, make in self._plain():
            self._folder.text(name, digest([self._code, name, key]), make)

    def _plain(self) -> Iterator[tuple[str, Any, Any]]:
        board, view = self._board, self._pages
        made_ahead = []
        texts = {id(table): exports.table_text(table, self._texts) for table in board.tables}
        whole = _digest_of(*texts.values(), exports.board_text(board, (), {}))
        for table in board.tables:
            siblings = [other for other in board.tables if _same_base(other, table)]
            ahead = pairs.pairs_of(table)
            made_ahead += ahead
            seen = _digest_of(*(texts[id(other)] for other in siblings))
            cells = {row.id: self._pieces[row.id].cells for row in table.rows}
            yield board_page(table), seen, view.board(table, cells, siblings, board, ahead)
            yield from self._exports(exports_of(table), [table], whole)
        for pair in made_ahead:
            key = [self._pieces[row.id].key for row in (pair.first, pair.second)]
            yield pair.href, [key, pair.first.title, pair.second.title], view.pair(pair, board)
        yield "index.html", whole, view.index(board)
        yield "compare.html", whole, view.compare(board, made_ahead)
        for name, make in view.texts(board):
            yield name, whole, make
        names = ("exports/board.csv", "exports/board.json")
        yield from self._exports(names, board.tables, whole)
        yield "exports/every_eval_ever.json", whole, self._records

    def _records(self) -> str:
        found = (made.record for made in self._pieces.values() if made.record)
        return "[\n" + ",\n".join(found) + "\n]\n"

    def _exports(
        self, names: tuple[str, str], tables: Sequence[RankingTable], key: str
    ) -> Iterator[tuple[str, Any, Any]]:
        yield names[0], key, lambda: exports.csv_text([self._csv(table) for table in tables])
        yield names[1], key, functools.partial(exports.board_text, self._board, tables, self._texts)

    def _csv(self, table: RankingTable) -> str:
        # A table stands in its own file and in that of the whole board.
        if id(table) not in self._lines:
            tails = {row.id: self._pieces[row.id].csv for row in table.rows}
            self._lines[id(table)] = exports.csv_rows(table, tails)
        return self._lines[id(table)]

    def _assets(self) -> None:
        for asset in (*self._pages.assets(), *map(bundle.script, pages.VENDORED_SCRIPTS)):
            content = asset.text.encode()
            name = f"{ASSET_FOLDER}/{asset.name}"
            key = hashlib.sha256(content).hexdigest()
            if not self._folder.keep(name, key=key):
                self._folder.add(name, content, key)
        for path in sorted(bundle.VENDORED.glob("*/LICENSE")):
            name = f"{ASSET_FOLDER}/licences/{path.parent.name}.txt"
            self._folder.text(name, "licence", path.read_text)

    def _context(self, row: Row) -> list[str]:
        """Return what a row's own files are made of besides the submission and its status."""
        tables = self._tables[row.id]
        boards = [text for table in tables for text in (table.regime, table.regime_label)]
        return [self._infos[tables[0].base], *boards]

    def _row(self, row: Row) -> None:
        key, store = self._pieces[row.id].key, self._board.bases[self._tables[row.id][0].base]
        top = f"rows/{row_slug(row.id)}"
        copied = evidence_files(row.entry) if row.entry else []
        made = ["every_eval_ever.json", "eval_results.yaml"] if row.entry else []
        names = [row_page(row), *(f"{top}/{name}" for name in [*copied, *made])]
        names += [outcomes_file(row.id)] if has_answers(row) else []
        if self._folder.keep(*names, key=key):
            return
        facts = row_facts(row, store)
        page = self._pages.row(row, self._tables[row.id], store, facts)
        self._folder.add(row_page(row), page.encode(), key)
        if has_answers(row):
            script = outcomes_script(row, facts)
            self._folder.add(outcomes_file(row.id), script.encode(), key)
        if row.folder is None:
            return
        for name in copied:
            self._folder.copy(f"{top}/{name}", row.folder / name, key)
        record = f"{self._pieces[row.id].record}\n"
        self._folder.add(f"{top}/every_eval_ever.json", record.encode(), key)
        address = self._options.address
        source = f"{address.rstrip('/')}/{row_page(row)}" if address else None
        entries = exports.eval_results(row, self._options.dataset, source)
        text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        self._folder.add(f"{top}/eval_results.yaml", text.encode(), key)


def _digest_of(*texts: str) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()


def _same_base(one: RankingTable, other: RankingTable) -> bool:
    return (one.version, one.base) == (other.version, other.base)


def _code() -> str:
    """Return a digest of all that pages are made with."""
    found = hashlib.sha256(__version__.encode())
    for folder in (HERE, bundle.HERE):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".html", ".css", ".js"):
                found.update(path.read_bytes())
    return found.hexdigest()


def summary(built: Built) -> dict[str, Any]:
    """Return what was built as JSON."""
    board = built.board
    return {
        "site": str(built.site),
        "index": str(built.site / "index.html"),
        "boards": len(board.tables),
        "rows": len(board.rows()),
        "refused": len(board.refused),
        "withdrawn": len(board.withdrawn),
        "files_made": built.written,
        "files_kept": built.kept,
    }
