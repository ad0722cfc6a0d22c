"""The download, against a server on this machine that behaves well and badly."""

from __future__ import annotations

import hashlib
import http.server
import logging
import shutil
import socket
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftknow_eval.artifacts import cache_dir
from sftknow_eval.errors import DataError, OutOfSpace
from sftknow_eval.mastery import download
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.dataset import count_facts, open_dataset
from sftknow_eval.mastery.download import entity_questions


class _Server(http.server.ThreadingHTTPServer):
    """Serves `body`, in the way that the path names; remembers what was asked."""

    daemon_threads = True
    body = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.close_connection = True
        body = self.server.body
        match self.path:
            case "/missing":
                self.send_error(404)
            case "/page":
                self._send(b"<html>moved</html>")
            case "/cut":
                self._send(body[:-100], len(body))
            case "/chunked" | "/cut-chunked":
                # As GitHub sends an archive: no length told beforehand.
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
                if self.path == "/chunked":
                    self.wfile.write(b"0\r\n\r\n")
            case "/reset":
                self._send(body[:100], len(body))
                # No linger: the connection is reset instead of closed.
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            case "/stalled":
                self._send(body[:100], len(body))
                self.wfile.flush()
                threading.Event().wait(3)
            case _:
                self._send(body)

    def _send(self, body: bytes, told: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if told is None else told))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def archive(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    base = tmp_path_factory.mktemp("archive") / "dataset"
    return Path(shutil.make_archive(str(base), "zip", small_data)).read_bytes()


@pytest.fixture
def server(archive: bytes, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """Serves the small data, which stands for EntityQuestions here."""
    monkeypatch.setattr(download, "CONTENT_DIGEST", FactFiles(small_data).digest())
    with _Server() as running:
        running.body = archive
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


def kept() -> list[Path]:
    return list((cache_dir() / "entity_questions").glob("*"))


@pytest.mark.parametrize("path", ["/whole", "/chunked"])
def test_the_archive_is_kept_and_asked_for_once(server: _Server, path: str) -> None:
    target = entity_questions(count_facts, (server.url + path,))
    assert target.read_bytes() == server.body
    assert kept() == [target]
    assert entity_questions(count_facts, (server.url + path,)) == target
    assert server.asked == [path]


def test_data_is_downloaded_when_none_is_named(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entity_questions, "__defaults__", ((f"{server.url}/whole",),))
    assert len(open_dataset().facts("test")) == 15


BAD = ["/missing", "/page", "/cut", "/cut-chunked", "/reset", "/stalled"]


@pytest.mark.parametrize("path", BAD)
def test_the_second_source_serves_when_the_first_fails(
    server: _Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.5)
    with caplog.at_level(logging.WARNING):
        target = entity_questions(count_facts, (server.url + path, f"{server.url}/whole"))
    assert target.read_bytes() == server.body
    assert f"{path} could not be used" in caplog.text


def test_when_all_sources_fail_each_is_named_and_nothing_is_left(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused
        down = f"http://127.0.0.1:{closed.getsockname()[1]}/down"
        with pytest.raises(
            DataError, match=r"--data or the environment variable SFTKNOW_DATA"
        ) as caught:
            entity_questions(count_facts, (*(server.url + path for path in BAD), down))
    for path in (*BAD, "/down"):
        assert f"{path}: " in str(caught.value)
    assert kept() == []
    # The next call begins anew.
    assert entity_questions(count_facts, (f"{server.url}/whole",)).is_file()


def test_other_facts_are_refused(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CONTENT_DIGEST", "0" * 64)
    with pytest.raises(DataError, match="content digest"):
        entity_questions(count_facts, (f"{server.url}/whole",))
    assert kept() == []


def test_another_digest_with_the_right_counts_is_used_and_said(
    server: _Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CONTENT_DIGEST", "0" * 64)
    # Of the small data, by hand: two ID relations with five facts each, one OOD with five.
    counts = {"train id": 10, "test id": 10, "test ood": 5, "dev id": 10}
    monkeypatch.setattr(download, "FACT_COUNTS", counts)
    with caplog.at_level(logging.WARNING):
        assert entity_questions(count_facts, (f"{server.url}/whole",)).is_file()
    assert "numbers of facts are right" in caplog.text


def test_a_cache_that_cannot_be_written_is_named(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTKNOW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="SFTKNOW_CACHE"):
        entity_questions(count_facts, (f"{server.url}/whole",))


def test_a_full_disk_is_said_and_no_source_blamed(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def onto_full_disk(url: str, partial: Path) -> None:
        partial.symlink_to("/dev/full")
        real_fetch(url, partial)

    real_fetch = download._fetch
    monkeypatch.setattr(download, "_fetch", onto_full_disk)
    with pytest.raises(OutOfSpace, match=r"dataset\.zip"):
        entity_questions(count_facts, (f"{server.url}/whole", f"{server.url}/never"))
    assert server.asked == ["/whole"]
    assert kept() == []


def test_the_real_files_are_known_however_they_are_archived(
    real_archive: Path,
    server: _Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The protocol's digest; in the layout in which GitHub archives a commit.
    monkeypatch.setattr(
        download,
        "CONTENT_DIGEST",
        "f2adedd53a6f573db918d4fa36031f6574c6ad1fb66f5aec7818c8919d492113",
    )
    repacked = tmp_path / "commit.zip"
    with zipfile.ZipFile(real_archive) as official, zipfile.ZipFile(repacked, "w") as commit:
        for name in reversed(official.namelist()):
            commit.writestr(f"EntityQuestions-096c261/{name}", official.read(name))
    server.body = repacked.read_bytes()
    with caplog.at_level(logging.WARNING):
        target = entity_questions(count_facts, (f"{server.url}/chunked",))
    assert caplog.text == ""
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(server.body).digest()
