"""Publishing to stand-ins: a bare Git repository, and a server that speaks as the Hub does."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from cli_calls import Sftknow
from huggingface_hub import HfApi

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.site.build import Built
from sftknow_eval.leaderboard.site.publish import parcel, to_github_pages, to_space


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "board.git"
    _git("init", "--quiet", "--bare", str(path))
    return path


@pytest.fixture
def site(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.site, tmp_path / "site"))


def test_the_branch_holds_the_site_and_keeps_its_history(site: Path, repository: Path) -> None:
    (site / "notes.txt").write_text("my own")
    first = to_github_pages(site, str(repository))
    names = set(_git("-C", str(repository), "ls-tree", "-r", "--name-only", "gh-pages").split("\n"))
    assert names - {""} == {*parcel(site).names, ".nojekyll"}
    text = _git("-C", str(repository), "show", "gh-pages:index.html")
    assert text == (site / "index.html").read_text(encoding="utf-8")
    assert to_github_pages(site, str(repository)) == first  # nothing changed, nothing is added
    (site / "faq.html").unlink()
    index = json.loads((site / "site.json").read_text())
    del index["files"]["faq.html"]
    (site / "site.json").write_text(json.dumps(index))
    to_github_pages(site, str(repository))
    assert _git("-C", str(repository), "rev-list", "--count", "gh-pages").strip() == "2"
    assert "faq.html" not in _git("-C", str(repository), "ls-tree", "--name-only", "gh-pages")


def test_a_dry_run_lists_the_files_and_sends_nothing(
    site: Path, repository: Path, sftknow: Sftknow
) -> None:
    done = sftknow("board", "publish", "--to", "github", repository, "--site", site, "--dry-run")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[:-1] == list(parcel(site).names)
    assert lines[-1].startswith(f"{len(lines) - 1} files, ")
    assert _git("-C", str(repository), "branch") == ""


def test_git_s_refusal_is_told(site: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="git ls-remote failed"):
        to_github_pages(site, str(tmp_path / "nowhere.git"))


def test_a_changed_or_linked_file_is_not_sent(site: Path, tmp_path: Path) -> None:
    path = site / "faq.html"
    path.write_text(path.read_text() + "more")
    with pytest.raises(SettingsError, match="is not the file that was built"):
        parcel(site)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(SettingsError, match="is not the file that was built"):
        parcel(site)
    with pytest.raises(SettingsError, match="no built site"):
        parcel(tmp_path)


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


class _Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hub that creating and filling a Space needs."""

    seen: list[tuple[str, Any]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            old = {"type": "file", "path": "old.html", "size": 1, "oid": "0" * 40}
            self._answer([old])
        else:
            self._answer({"id": "ada/board", "sha": "0" * 40, "siblings": [], "private": False})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen.append((self.path, text))
        if self.path.endswith("/repos/create"):
            self._answer({"url": f"http://{self.headers['Host']}/spaces/ada/board"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(text)["files"]
            ]
            self._answer({"files": files})
        else:
            url = f"http://{self.headers['Host']}/spaces/ada/board/commit/{'1' * 40}"
            self._answer({"commitUrl": url, "commitOid": "1" * 40, "pullRequestUrl": None})

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HfApi, list[tuple[str, Any]]]]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    seen: list[tuple[str, Any]] = []
    handler = type("Hub", (_Hub,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{running.server_address[1]}"
        yield HfApi(endpoint=endpoint, token="hf_none"), seen
        running.shutdown()


def test_a_space_gets_the_site_and_loses_what_is_not_part_of_it(
    site: Path, hub: tuple[HfApi, list[tuple[str, Any]]]
) -> None:
    api, seen = hub
    assert to_space(site, "ada/board", api=api) == f"{api.endpoint}/spaces/ada/board"
    created = next(json.loads(text) for path, text in seen if path.endswith("/create"))
    assert (created["type"], created["sdk"]) == ("space", "static")
    commit = next(text for path, text in seen if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert sent == {*parcel(site).names, "README.md"}
    assert [x["value"]["path"] for x in lines if x["key"] == "deletedFile"] == ["old.html"]


def test_a_space_that_refuses_is_told(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(SettingsError, match=re.escape("The Space 'not a name' could not be")):
        to_space(site, "not a name", api=HfApi(endpoint="http://127.0.0.1:9", token="hf_none"))
