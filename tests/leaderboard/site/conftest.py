"""One built site, and one whose models answered with markup and scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from board_making import World

from sftknow_eval.leaderboard.site.build import Built, Options, build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=\"document.title='taken'\">",
    '" onmouseover="document.title=\'taken\'" x="',
    "{{ 7*7 }}{% raw %} javascript:alert(1) ‮ \x00 ￿",
    "');document.title='taken';//",
)
# Runs before a page's own scripts: notes whatever the policy had to stop.
_LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", function (event) {
  window.violations.push(event.violatedDirective + " " + event.blockedURI + " " + event.sourceFile);
});
"""


@pytest.fixture(scope="session")
def built(honest_board: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of the honest board."""
    options = Options(address="https://board.example.org/")
    return build(honest_board, tmp_path_factory.mktemp("built") / "site", options)


@pytest.fixture(scope="session")
def hostile_site(board_world: World, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of a board whose models wrote markup and scripts for every wrong answer."""
    folder = tmp_path_factory.mktemp("hostile")
    results = []
    for seed in range(3):
        out = board_world.results("hostile", seed)
        table = pq.read_table(out / "facts.parquet")
        texts = [
            text if "nowhere" not in text else f" {HOSTILE[i % len(HOSTILE)]}"
            for i, text in enumerate(table["finetuned_output"].to_pylist())
        ]
        place = table.schema.get_field_index("finetuned_output")
        table = table.set_column(place, "finetuned_output", pa.array(texts, pa.string()))
        pq.write_table(table, out / "facts.parquet")
        results.append(out)
    board_world.submit_row(folder / "leaderboard", results, run="hostile")
    return build(folder / "leaderboard", folder / "site")


@dataclass
class Watch:
    """Everything pages did that they must not do."""

    site: Path
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        """Listen to a page."""
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))

    def strangers(self, *allowed: str) -> list[str]:
        """Return the addresses asked for that are not the site's own."""
        own = (self.site.as_uri(), "data:", *allowed)
        return [url for url in self.requests if not url.startswith(own)]


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(chromium: Browser, built: Built) -> Iterator[Open]:
    """Open a page of the site from the disk; at the end, it must have kept to the rules."""
    watch, pages, contexts = Watch(built.site), [], []

    def opened(name: str, site: Path = built.site, query: str = "", **how: Any) -> Page:
        watch.site = site
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
        context.add_init_script(_LISTEN)
        page = context.new_page()
        watch.on(page)
        page.goto(f"{(site / name).as_uri()}{query}")
        contexts.append(context)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        if page.evaluate("typeof window.violations") != "undefined":
            assert page.evaluate("window.violations") == []
    for context in contexts:
        context.close()
    assert watch.strangers() == []
    assert watch.console == []
