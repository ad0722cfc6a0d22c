"""The built folder: whole or as before, only what changed is made again, nothing leads nowhere."""

from __future__ import annotations

import html
import html.parser
import io
import json
import os
import re
import shlex
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from board_making import OTHER, ROW, World
from cli_calls import Sftknow

from sftknow_eval.artifacts import locked
from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.file_marks import folder_digest
from sftknow_eval.leaderboard.site.build import Built, Options, build
from sftknow_eval.leaderboard.site.exports import board_text, row_text
from sftknow_eval.leaderboard.site.names import board_page, row_page, row_slug
from sftknow_eval.leaderboard.site.publish import parcel
from sftknow_eval.leaderboard.site.serve import HOST, server
from sftknow_eval.pages import drawings

Capture = pytest.CaptureFixture[str]


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [v for k in ("href", "src") if (v := values.get(k)) is not None]
        self.ids += [v for k in ("id",) if (v := values.get(k)) is not None]


def test_every_link_leads_to_a_file_of_the_site(built: Built) -> None:
    for page in built.site.rglob("*.html"):
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert len(links.ids) == len(set(links.ids)), f"{page}: an id stands twice"
        for link in links.found:
            address = urllib.parse.urlsplit(link)
            assert address.scheme in ("", "data"), f"{page}: {link} leads elsewhere"
            if address.scheme == "" and address.path:
                target = page.parent / urllib.parse.unquote(address.path)
                assert target.is_file(), f"{page}: {link} leads nowhere"


def test_every_row_has_a_page_with_its_evidence(built: Built) -> None:
    for row in built.board.rows().values():
        assert (built.site / row_page(row)).is_file()
        if row.folder is None:
            continue
        copied = built.site / "rows" / row_slug(row.id)
        for name in ("manifest.json", "evidence/seed-0.parquet"):
            assert (copied / name).read_bytes() == (row.folder / name).read_bytes()


def test_a_row_says_how_it_is_made_again(built: Built) -> None:
    text = (built.site / row_page(built.board.rows()[ROW])).read_text(encoding="utf-8")
    assert f"sftknow board reproduce {ROW} --base " in text
    assert f"sftknow board verify leaderboard/submissions/{ROW}" in text


def test_the_commands_on_a_row_s_page_are_understood(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    row = built.board.rows()[ROW]
    shutil.copytree(built.board.root, tmp_path / "leaderboard")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nobody says that it shall be run
    text = (built.site / row_page(row)).read_text(encoding="utf-8")
    commands = re.findall(r"<pre[^>]*><code>sftknow ([^<]*)</code>", text)
    done = [Sftknow(monkeypatch, capsys)(*shlex.split(html.unescape(line))) for line in commands]
    assert [(call.code, "Usage" in call.err) for call in done] == [(0, False), (1, False)]
    assert "Run it?" in done[1].out + done[1].err


def test_the_index_lists_every_file_and_no_other(built: Built) -> None:
    listed = json.loads((built.site / "site.json").read_text())["files"]
    found = {str(p.relative_to(built.site)) for p in built.site.rglob("*") if p.is_file()}
    assert set(listed) | {"site.json"} == found


def test_nothing_is_made_again_when_nothing_changed(board_copy: Path, tmp_path: Path) -> None:
    first = build(board_copy, tmp_path / "site")
    again = build(board_copy, tmp_path / "site")
    assert again.written == 0
    assert again.kept == first.written
    fresh = build(board_copy, tmp_path / "site", Options(fresh=True))
    assert fresh.kept == 0


def test_one_row_more_makes_its_pages_and_the_boards_again(
    board_copy: Path, tmp_path: Path, board_world: World
) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    # Bytes that a rebuild would not write: whoever finds them, the page was taken over.
    kept = site / row_page(next(r for r in _rows(board_copy, site) if r.id == OTHER))
    text = kept.read_text(encoding="utf-8").replace("</html>", "</HTML>")
    kept.write_text(text, encoding="utf-8")
    results = [board_world.results("third", seed) for seed in range(3)]
    folder = board_world.submit_row(board_copy, results, run="third")
    built = build(board_copy, site)
    row = next(row for row in built.board.rows().values() if row.folder == folder.resolve())
    assert (site / row_page(row)).is_file()
    assert kept.read_text(encoding="utf-8").rstrip().endswith("</HTML>")
    table = next(t for t in built.board.tables if row in t.rows)
    assert f"../{row_page(row)}" in (site / board_page(table)).read_text(encoding="utf-8")


def _rows(root: Path, site: Path) -> list:
    return list(build(root, site).board.rows().values())


def test_a_row_that_is_gone_leaves_no_page(board_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    gone = next(r for r in _rows(board_copy, site) if r.id == OTHER)
    shutil.rmtree(board_copy / "submissions" / OTHER)
    build(board_copy, site)
    assert not (site / row_page(gone)).exists()


def test_a_refused_submission_keeps_no_other_from_being_shown(
    board_copy: Path, tmp_path: Path
) -> None:
    path = board_copy / "submissions" / OTHER / "manifest.json"
    path.write_text(path.read_text().replace('"n_correct": ', '"n_correct": 1'))
    built = build(board_copy, tmp_path / "site")
    assert [refused.path for refused in built.board.refused] == [OTHER]
    assert ROW in built.board.rows()
    assert OTHER not in built.board.rows()
    rules = (built.site / "rules.html").read_text(encoding="utf-8")
    assert OTHER in rules


def test_a_folder_that_is_no_site_is_not_replaced(honest_board: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    precious = tmp_path / "site" / "thesis.txt"
    precious.write_text("years of work")
    with pytest.raises(SettingsError, match="not a site built by"):
        build(honest_board, tmp_path / "site")
    assert precious.read_text() == "years of work"


def test_two_builds_of_one_site_are_refused(honest_board: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".site.cache"),
        pytest.raises(SettingsError, match="Another run is writing"),
    ):
        build(honest_board, tmp_path / "site")


def test_a_build_that_fails_leaves_the_site_as_it_was(
    board_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    before = (site / "site.json").read_bytes()
    from sftknow_eval.leaderboard.site import pairs

    def broken(*_: object) -> list:
        raise RuntimeError("stopped")

    monkeypatch.setattr(pairs, "pairs_of", broken)
    with pytest.raises(RuntimeError):
        build(board_copy, site)
    assert (site / "site.json").read_bytes() == before
    assert not list(tmp_path.glob(".site.*.partial"))


def test_an_empty_board_has_pages_too(tmp_path: Path) -> None:
    root = tmp_path / "leaderboard"
    (root / "submissions").mkdir(parents=True)
    (root / "mastery").mkdir()
    built = build(root, tmp_path / "site")
    assert "No row has been submitted yet" in (built.site / "index.html").read_text("utf-8")


def test_hostile_folders_of_every_kind_do_not_stop_the_build(
    board_copy: Path, tmp_path: Path
) -> None:
    top = board_copy / "submissions" / "1" / "the-base"
    made = {
        "markup": b'{"title": "<script>alert(1)</script>"}',
        "deep": b"[" * 100_000,
        "bytes": b"\xff\xfe\x00",
        "empty": b"",
    }
    for name, content in made.items():
        (top / name / "run").mkdir(parents=True)
        (top / name / "run" / "manifest.json").write_bytes(content)
    bomb = shutil.copytree(board_copy / "submissions" / OTHER, top / "bomb" / "run")
    (bomb / "evidence" / "seed-0.parquet").write_bytes(b"PAR1" + b"\x00" * 64 + b"PAR1")
    strange = shutil.copytree(board_copy / "submissions" / OTHER, top / "<img src=x>" / "run")
    (top / "linked").symlink_to(strange.parent)
    built = build(board_copy, tmp_path / "site")
    assert {ROW, OTHER} <= built.board.rows().keys()
    refused = {entry.path.split("/")[2] for entry in built.board.refused}
    assert {*made, "bomb", "<img src=x>"} <= refused
    rules = (built.site / "rules.html").read_text(encoding="utf-8")
    assert "&lt;img src=x&gt;" in rules
    assert "<img" not in rules


def test_the_commands_build_and_say_where(
    honest_board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    sftknow = Sftknow(monkeypatch, capsys)
    site = tmp_path / "site"
    done = sftknow("board", "build", "--root", honest_board, "--out", site)
    assert done.code == 0, done.err
    assert f"Open {site / 'index.html'}" in done.out
    found = sftknow("board", "build", "--root", honest_board, "--out", site, "--json")
    assert json.loads(found.out)["files_made"] == 0
    nowhere = sftknow("board", "serve", tmp_path / "nowhere", "--port", "0")
    assert nowhere.code == 2
    assert "holds no built site" in nowhere.err


def test_serving_sends_files_of_the_site_and_nothing_else(built: Built) -> None:
    with server(built.site) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://{HOST}:{running.server_address[1]}"
        with urllib.request.urlopen(f"{address}/") as answer:
            assert answer.read() == (built.site / "index.html").read_bytes()
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for place in ("boards/", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "nothing.html"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{address}/{place}")
        running.shutdown()


def test_what_is_kept_gives_the_board_that_is_made_anew(board_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    kept = build(board_copy, site).board
    fresh = build(board_copy, tmp_path / "fresh").board
    texts = [
        board_text(board, board.tables, {i: row_text(row) for i, row in board.rows().items()})
        for board in (kept, fresh)
    ]
    assert texts[0] == texts[1]


def test_one_changed_byte_is_judged_again(board_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    path = board_copy / "submissions" / OTHER / "evidence" / "seed-1.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert [refused.path for refused in build(board_copy, site).board.refused] == [OTHER]


def test_a_build_killed_while_it_changes_pages_leaves_each_whole(
    board_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    shutil.rmtree(board_copy / "submissions" / OTHER)
    rename = Path.replace

    def killed(path: Path, target: str | Path) -> Path:
        if str(target).endswith("compare.html"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            build(board_copy, site)
    for page in site.rglob("*.html"):
        assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    with pytest.raises(SettingsError, match="Build again"):
        parcel(site)
    build(board_copy, site)
    build(board_copy, tmp_path / "fresh")
    assert _contents(site) == _contents(tmp_path / "fresh")


def _contents(site: Path) -> dict[str, bytes]:
    files = (path for path in site.rglob("*") if path.is_file() and path.name != "site.json")
    return {str(path.relative_to(site)): path.read_bytes() for path in files}


def test_bytes_that_change_behind_size_and_times_are_judged_again(
    board_copy: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    path = board_copy / "submissions" / OTHER / "evidence" / "seed-1.parquet"
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as same:  # the same file on the disk
        same.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert [refused.path for refused in build(board_copy, site).board.refused] == [OTHER]


def test_a_submission_is_recognised_by_the_names_and_bytes_of_its_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "evidence").mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "evidence" / "seed-0.parquet").write_bytes(b"PAR1")
    first = folder_digest(one)
    assert folder_digest(other) == first
    (other / "evidence" / "seed-0.parquet").rename(other / "evidence" / "seed-1.parquet")
    assert folder_digest(other) != first
    (one / "linked").symlink_to(one / "manifest.json")
    with pytest.raises(ValueError, match="link"):
        folder_digest(one)


def test_what_is_kept_of_rows_gives_the_files_that_are_made_anew(
    board_copy: Path, tmp_path: Path
) -> None:
    site, left = tmp_path / "site", tmp_path / "left"
    submission = board_copy / "submissions" / OTHER
    shutil.move(submission, left)
    build(board_copy, site)
    shutil.move(left, submission)
    build(board_copy, site)
    build(board_copy, tmp_path / "fresh")
    assert _contents(site) == _contents(tmp_path / "fresh")


def test_a_chart_is_not_drawn_twice(
    board_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    build(board_copy, site)
    board = next((site / "boards").glob("*.html"))
    before = board.read_text(encoding="utf-8")
    assert "<svg" in before
    shutil.rmtree(site)

    def draws(spec: str) -> str:
        raise AssertionError("drawn again")

    monkeypatch.setattr(drawings, "_draw", draws)
    build(board_copy, site)
    assert board.read_text(encoding="utf-8") == before
