"""Pages, their policy and the files beside them."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import jinja2
import pytest

from sftknow_eval.errors import DataError
from sftknow_eval.pages import bundle
from sftknow_eval.pages.bundle import CHART_SCRIPTS, VENDORED, Asset, script
from sftknow_eval.pages.render import Pages

TEMPLATE = '{% extends "layout.html" %}{% block main %}<p>{{ text }}</p>{% endblock %}'


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "page.html").write_text(TEMPLATE)
    return folder


def test_texts_are_escaped_and_unknown_names_are_errors(templates: Path) -> None:
    page = Pages([templates]).page("page.html", title="<b>T</b>", text="<img src=x>")
    assert "<title>&lt;b&gt;T&lt;/b&gt;</title>" in page
    assert "<p>&lt;img src=x&gt;</p>" in page
    with pytest.raises(jinja2.UndefinedError):
        Pages([templates]).page("page.html", title="T")


def test_the_policy_allows_just_the_scripts_and_styles_of_the_page(templates: Path) -> None:
    page = Pages([templates]).page("page.html", title="T", text="", scripts=CHART_SCRIPTS)
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;")
    for tag in ("script", "style"):
        for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL):
            found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"sha256-{found}" in policy[1]
    assert page.count("<script>") == len(CHART_SCRIPTS) + 1


def test_a_page_of_a_site_links_files_that_are_written(templates: Path, tmp_path: Path) -> None:
    pages = Pages([templates], site=True, extra=[Asset("own.js", "1;"), Asset("own.css", "p{}")])
    page = pages.page("page.html", title="T", text="", scripts=("own.js",), root="../")
    pages.write_assets(tmp_path / "site")
    links = re.findall(r'(?:src|href)="(\.\./[^"]*)"', page)
    assert {Path(link).name for link in links} == {"theme.css", "own.css", "theme.js", "own.js"}
    for link in links:
        assert (tmp_path / "site" / link.removeprefix("../")).is_file()
    assert "<script>" not in page


def test_vendored_files_are_those_of_the_list() -> None:
    lines = (VENDORED / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split()) for line in lines)
    there = {str(path.relative_to(VENDORED)) for path in VENDORED.glob("*/*")}
    assert there == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == digest
    assert all((folder / "LICENSE").is_file() for folder in VENDORED.iterdir() if folder.is_dir())


def test_an_altered_vendored_file_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vega").mkdir()
    (tmp_path / "SHA256SUMS").write_text((VENDORED / "SHA256SUMS").read_text())
    (tmp_path / "vega/vega.min.js").write_text("alert(1)")
    monkeypatch.setattr(bundle, "VENDORED", tmp_path)
    script.cache_clear()
    with pytest.raises(DataError, match="not the file that sftknow-eval came with"):
        script("vega.js")
    script.cache_clear()
