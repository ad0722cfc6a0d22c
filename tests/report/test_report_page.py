"""Reports in a real Chromium: both themes, a phone, paper, without JavaScript, for everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_world import Made, World

from sftknow_eval.report.study_report import study_report

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(world: World, made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report card and a study's report."""
    study = study_report(world.study, tmp_path_factory.mktemp("study-page"))
    return {"card": made.out / "index.html", "study": study}


@pytest.fixture
def visit(pages: dict[str, Path], chromium: Any) -> Iterator[Open]:
    """Open one of the pages; what it says on the console and asks for is kept with it."""
    contexts = []

    def go(name: str, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield go
    for context in contexts:
        context.close()


def _see_all(page: Any) -> None:
    """Scroll to the end, so that every chart is drawn live."""
    figures = page.locator(".chart[data-live]")
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
    live, wanted = page.locator(".chart.is-live"), figures.count()
    # Asked again and again from here: the page's policy forbids what waiting in it would evaluate.
    for _ in range(900):
        if live.count() == wanted:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{live.count()} of {wanted} charts are live; said: {page.said}")


@pytest.mark.parametrize("name", ["card", "study"])
def test_nothing_is_asked_of_anybody_and_the_policy_holds(visit: Open, name: str) -> None:
    page = visit(name)
    _see_all(page)
    outside = [url for url in page.asked if not url.startswith("data:")]
    assert outside == [page.url]
    # A breach of the Content-Security-Policy or a failed chart would stand on the console.
    assert page.said == []


def test_a_script_or_style_from_elsewhere_does_not_run(visit: Open) -> None:
    page = visit("card")
    page.evaluate(
        "() => { for (const tag of ['script', 'style']) {"
        " const e = document.createElement(tag);"
        " e.textContent = tag == 'script' ? 'window.ran = 1' : 'body { opacity: 0.5 }';"
        " document.body.append(e); }"
        " const img = new Image(); img.src = 'https://example.invalid/x.png';"
        " document.body.append(img); }"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("getComputedStyle(document.body).opacity") == "1"
    refused = " ".join(page.said)
    assert all(f"{kind}-src" in refused for kind in ("script", "style", "img"))


@pytest.mark.parametrize("name", ["card", "study"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_axe_finds_nothing(visit: Open, name: str, theme: str, size: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    viewport = PHONE if size == "phone" else {"width": 1200, "height": 900}
    page = visit(name, color_scheme=theme, viewport=viewport)
    _see_all(page)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", ["card", "study"])
def test_a_phone_scrolls_tables_and_not_the_page(visit: Open, name: str) -> None:
    page = visit(name, viewport=PHONE)
    _see_all(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == PHONE["width"]


@pytest.mark.parametrize("name", ["card", "study"])
def test_all_is_there_without_javascript(visit: Open, name: str) -> None:
    page = visit(name, java_script_enabled=False)
    charts = page.locator(".chart svg.drawing")
    assert charts.count() == page.locator("figure").count() > 3
    for i in range(charts.count()):
        assert charts.nth(i).is_visible()
    assert page.locator(".lead").inner_text()
    assert page.locator("table caption").count() == page.locator("table").count() > 3


def test_the_theme_can_be_chosen_without_javascript(visit: Open) -> None:
    page = visit("card", color_scheme="light", java_script_enabled=False)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.locator("body").evaluate(f"() => {colour}")
    page.get_by_role("radio", name="Dark").check()
    dark = page.locator("body").evaluate(f"() => {colour}")
    # #fcfcfb and #14181d of the palette.
    assert (light, dark) == ("rgb(252, 252, 251)", "rgb(20, 24, 29)")


def test_charts_follow_the_theme_and_show_values(visit: Open) -> None:
    page = visit("card", color_scheme="dark")
    _see_all(page)
    mark = page.locator(".live path[stroke='var(--series-1)'], .live path[fill='var(--series-1)']")
    painted = mark.first.evaluate(
        "e => [getComputedStyle(e).fill, getComputedStyle(e).stroke].join()"
    )
    # #5aa9ee is the palette's first colour in the dark.
    assert "rgb(90, 169, 238)" in painted
    bar = _first_seen(page.locator("#transitions-0-id .live .mark-rect path"))
    bar.scroll_into_view_if_needed()
    bar.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "stratum" in page.locator("#vg-tooltip-element").inner_text()


def _first_seen(bars: Any) -> Any:
    """Return the first bar that has a height: nothing may have been lost of a stratum."""
    return next(bar for bar in bars.all() if bar.is_visible())


def test_paper_is_white_and_shows_the_drawings(visit: Open) -> None:
    page = visit("card", color_scheme="dark")
    _see_all(page)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".live").first.is_hidden()
    assert page.locator(".still").first.is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_keyboard_reaches_the_content_first(visit: Open) -> None:
    page = visit("card")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
