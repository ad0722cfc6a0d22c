"""The download, against a server on this machine that behaves well and badly."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REAL_ARCHIVE

from sftknow_eval.artifacts import cache_dir
from sftknow_eval.errors import DataError
from sftknow_eval.mastery.download import entity_questions


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = REAL_ARCHIVE.read_bytes() if REAL_ARCHIVE.is_file() else b""
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:-1000] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


needs_archive = pytest.mark.skipif(
    not REAL_ARCHIVE.is_file(), reason="the EntityQuestions archive is not here"
)


@needs_archive
def test_the_second_source_serves_when_the_first_is_down(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        path = entity_questions((f"{server}/missing", f"{server}/whole"))
    assert path.read_bytes() == REAL_ARCHIVE.read_bytes()
    assert "missing" in caplog.text
    # Now it is in the cache: no source is asked.
    assert entity_questions(()) == path


@needs_archive
def test_a_truncated_body_is_never_taken_for_the_archive(server: str) -> None:
    with pytest.raises(DataError, match="SFTKNOW_DATA"):
        entity_questions((f"{server}/cut",))
    assert not list((cache_dir() / "entity_questions").glob("*"))


@needs_archive
def test_another_digest_with_the_right_counts_is_used_and_said(
    server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftknow_eval.mastery.download.CONTENT_DIGEST", "0" * 64)
    with caplog.at_level(logging.WARNING):
        assert entity_questions((f"{server}/whole",)).is_file()
    assert "numbers of facts are right" in caplog.text


def test_other_facts_are_refused(small_data: Path, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "other"), "zip", small_data)
    with pytest.raises(DataError, match="content digest"):
        entity_questions((Path(archive).as_uri(),))
