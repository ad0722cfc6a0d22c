"""Pages in a real Chromium, opened from the disk: what readers do, and what pages must not do.

Every test also fails when a page asks for a file that is not the site's, writes to the console, or
does what its Content-Security-Policy forbids (`open_page`).
"""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from board_making import OTHER, ROW

from sftknow_eval.leaderboard.rows import Row
from sftknow_eval.leaderboard.site.build import Built
from sftknow_eval.leaderboard.site.names import board_page, row_page, title_in
from sftknow_eval.leaderboard.site.outcomes import row_facts
from sftknow_eval.leaderboard.site.pairs import counts
from sftknow_eval.leaderboard.site.serve import HOST, server
from sftknow_eval.pages.tables import MISSING

if TYPE_CHECKING:
    from conftest import Open
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
TEXTS = ["index.html", "compare.html", "method.html", "rules.html", "faq.html", "paper.html"]


def kinds(built: Built) -> list[str]:
    """One page of each kind."""
    pair = sorted((built.site / "compare").glob("*.html"))[0]
    table = built.board.tables[0]
    rows = built.board.rows()
    base = next(row for row in rows.values() if row.control == "base")
    pages = [board_page(table), row_page(rows[ROW]), row_page(base), f"compare/{pair.name}"]
    return [*TEXTS, "downloads.html", *pages]


def titles(page: Page) -> list[str]:
    return page.locator("#rows tbody th a").all_inner_texts()


def head(page: Page, label: str) -> str:
    return f"#rows thead th:has(.dt-column-title:text-is('{label}'))"


def sorted_by(page: Page, label: str, order: str) -> None:
    """Wait until a column is sorted, which DataTables does after the click, and says so."""
    page.locator(f"{head(page, label)}[aria-sort='{order}']").wait_for()


def test_a_column_sorts_by_mouse_and_by_keyboard(open_page: Open, built: Built) -> None:
    table = built.board.tables[0]
    page = open_page(board_page(table))
    measured = [row for row in table.rows if row.measures["id"].value is not None]
    rising = [
        title_in(table, row) for row in sorted(measured, key=lambda row: row.measures["id"].value)
    ]
    page.locator(head(page, "ID")).click()
    sorted_by(page, "ID", "ascending")
    assert titles(page) == rising
    page.locator(f"{head(page, 'ID')} .dt-column-order").focus()
    page.keyboard.press("Enter")
    sorted_by(page, "ID", "descending")
    assert titles(page) == rising[::-1]


def test_missing_values_stay_last_both_ways(open_page: Open, built: Built) -> None:
    # Only base_again has no facts lost: it is measured on shares of samples.
    table = built.board.tables[0]
    page = open_page(board_page(table))
    again = next(row.title for row in table.rows if row.control == "base_again")
    for order in ("ascending", "descending"):
        page.locator(head(page, "Lost")).click()
        sorted_by(page, "Lost", order)
        assert titles(page)[-1] == again


def test_rows_are_filtered_and_counted(open_page: Open, built: Built) -> None:
    table = built.board.tables[0]
    page = open_page(board_page(table))
    assert titles(page) == [title_in(table, row) for row in table.rows]
    assert page.locator("#count").inner_text() == f"{len(table.rows)} rows"
    page.get_by_label("Find").fill("again")
    assert page.locator("#count").inner_text() == f"1 of {len(table.rows)} rows"
    page.get_by_label("Find").fill("")
    page.locator("#kind").select_option("control")
    assert titles(page) == [title_in(table, row) for row in table.rows if row.control]
    page.locator("#kind").select_option("pareto")
    assert titles(page) == [title_in(table, row) for row in table.rows if row.pareto]
    page.locator("#status").select_option("recomputed")
    assert titles(page) == [title_in(table, row) for row in table.rows if row.pareto]


def test_any_two_rows_are_compared_fact_by_fact(open_page: Open, built: Built) -> None:
    rows = built.board.rows()
    store = built.board.bases["the-base"]
    table = next(t for t in built.board.tables if rows[ROW] in t.rows)
    slug = f"{table.version}~{table.base}~{table.regime}"
    page = open_page("compare.html", query=f"?board={slug}&a={ROW}")
    page.locator("#second").select_option(OTHER)
    page.locator("#result").wait_for()
    shown = [row.split("\t") for row in page.locator("#sums tbody").inner_text().splitlines()]
    facts = [row_facts(rows[name], store) for name in (ROW, OTHER)]
    expected = list(counts(facts[0], facts[1], store))
    assert [row[0] for row in shown] == [count.label for count in expected]
    for row, count in zip(shown, expected, strict=True):
        assert row[1:5] == [str(n) for n in (count.both, count.first, count.second, count.neither)]
        # The page's own McNemar against SciPy's binomial test.
        assert row[5] == _p(count.p)
    differing = sum(c.first + c.second for c in expected if c.label.endswith("all"))
    assert page.locator("#facts tbody tr").count() == differing
    page.locator("#which").select_option("first")
    only = sum(c.first for c in expected if c.label.endswith("all"))
    assert page.locator("#facts tbody tr").count() == only
    assert f"b={OTHER.replace('/', '%2F')}" in page.url


def _p(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


@pytest.fixture
def address(built: Built) -> Iterator[str]:
    with server(built.site) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://{HOST}:{running.server_address[1]}"
        running.shutdown()


def test_downloads_hold_the_rows(chromium: Browser, built: Built, address: str) -> None:
    page = chromium.new_page()
    response = page.goto(f"{address}/downloads.html")
    assert response is not None
    assert "script-src 'self'" in response.headers["content-security-policy"]
    with page.expect_download() as download:
        page.get_by_role("link", name="board.csv").click()
    text = download.value.path().read_text(encoding="utf-8")
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(rows) == set(built.board.rows())
    expected = built.board.rows()[ROW].measures["id"].value
    assert float(rows[ROW]["id"]) == expected
    page.goto(f"{address}/{row_page(built.board.rows()[ROW])}")
    with page.expect_download() as download:
        page.get_by_role("link", name="evidence/seed-0.parquet").click()
    folder = built.board.rows()[ROW].folder
    assert folder is not None
    assert download.value.path().read_bytes() == (folder / "evidence/seed-0.parquet").read_bytes()
    page.close()


def test_a_served_site_keeps_its_policy_too(chromium: Browser, built: Built, address: str) -> None:
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    page.goto(f"{address}/{board_page(built.board.tables[0])}")
    page.locator(".chart[data-live]").first.scroll_into_view_if_needed()
    page.locator(".is-live").first.wait_for()
    assert [line for line in said if not line.startswith((address, "data:"))] == []
    page.close()


def test_without_scripts_everything_is_there(open_page: Open, built: Built) -> None:
    table = built.board.tables[0]
    page = open_page(board_page(table), java_script_enabled=False)
    assert titles(page) == [title_in(table, row) for row in table.rows]
    assert page.locator("svg.drawing").count() >= 2
    assert not page.locator(".js-tools").is_visible()
    assert not page.locator(".sorting").is_visible()
    page = open_page("compare.html", java_script_enabled=False)
    assert page.get_by_text("Choosing rows needs scripts").is_visible()
    page.locator("main li a").first.click()
    assert page.locator("#sums tbody tr").count() > 0
    assert page.locator("#facts tbody tr").count() > 0


@pytest.mark.parametrize("scripts", [True, False])
def test_colours_follow_the_system_and_the_reader(open_page: Open, scripts: bool) -> None:
    dark, light = "rgb(20, 24, 29)", "rgb(252, 252, 251)"  # palette.COLOURS["page"]
    page = open_page("index.html", color_scheme="dark", java_script_enabled=scripts)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == dark
    page.locator("#theme-light").check()
    assert page.evaluate(ground) == light
    page.locator("#theme-dark").check()
    assert page.evaluate(ground) == dark


def test_a_phone_scrolls_tables_and_not_pages(open_page: Open, built: Built) -> None:
    for name in kinds(built):
        page = open_page(name, viewport={"width": 390, "height": 844})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, name
    page = open_page(board_page(built.board.tables[0]), viewport={"width": 390, "height": 844})
    assert not page.locator("#rows thead th.s").first.is_visible()
    page.get_by_label("Columns by stratum").check()
    assert page.locator("#rows thead th.s").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_meet_wcag(open_page: Open, built: Built, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Without preload: axe would fetch the style sheets again, which the policy forbids.
    options = {"runOnly": WCAG, "resultTypes": ["violations"], "preload": False}
    faults = []
    for name in kinds(built):
        page = open_page(name, color_scheme=scheme)
        if page.locator(".chart[data-live]").count():
            page.locator(".chart[data-live]").first.scroll_into_view_if_needed()
            page.locator(".is-live").first.wait_for()
        if name == "compare.html":
            page.locator("#result").wait_for()
        found = Axe().run(page, options=options).response["violations"]
        faults += [(name, f["id"], [n["html"][:120] for n in f["nodes"][:3]]) for f in found]
    assert faults == []


def test_every_page_keeps_to_its_policy(open_page: Open, built: Built) -> None:
    for path in sorted(built.site.rglob("*.html")):
        page = open_page(str(path.relative_to(built.site)))
        policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
        assert policy is not None
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.evaluate("document.readyState") == "complete"


def test_the_policy_stops_what_is_slipped_in(chromium: Browser, built: Built) -> None:
    page = chromium.new_page()
    page.goto((built.site / "index.html").as_uri())
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.slipped = true";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<p style='color: red' id='p'>red</p>");
        }"""
    )
    assert page.evaluate("window.slipped === undefined")
    assert page.evaluate("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    sent = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'stopped')")
    assert sent == "stopped"
    page.close()


def test_hostile_texts_are_shown_and_do_nothing(open_page: Open, hostile_site: Built) -> None:
    row: Row = next(row for row in hostile_site.board.rows().values() if row.entry)
    for name in (row_page(row), "compare.html"):
        page = open_page(name, site=hostile_site.site)
        if name == "compare.html":
            page.locator("#result").wait_for()
            page.locator("#which").select_option("all")
            page.wait_for_function("document.querySelectorAll('#facts tbody tr').length > 20")
        assert "document.title='taken'" in page.locator("main").inner_text()
        page.locator("main").hover()
        assert page.title() != "taken"
        assert page.locator("main img, main script:not([type])").count() == 0
    pair = sorted((hostile_site.site / "compare").glob("*.html"))[0]
    page = open_page(f"compare/{pair.name}", site=hostile_site.site)
    assert re.search("onerror", page.locator("main").inner_text())
    assert page.title() != "taken"
