"""Look at a built site on this machine: files only, with the headers a host should send."""

from __future__ import annotations

import functools
import http.server
from pathlib import Path
from typing import Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.site.files import SITE_NAME
from sftknow_eval.pages.render import site_policy

HOST = "127.0.0.1"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files below one folder; lists no folders and logs nothing."""

    extensions_map = {  # noqa: RUF012 - the base class declares it so
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".json": "application/json",
        ".yaml": "text/plain; charset=utf-8",
        ".parquet": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Add the headers that a page of this site can live with."""
        self.send_header("Content-Security-Policy", f"{site_policy()}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Refuse: only pages are shown."""
        self.send_error(404, "Not found")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the command line says where the site is."""


def server(site: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Return a server of the site at `site`, bound to 127.0.0.1; port 0 takes a free one.

    Raises:
        SettingsError: there is no site, or the port is taken.
    """
    if not (site / SITE_NAME).is_file():
        raise SettingsError(
            f"{site} holds no built site (no {SITE_NAME}). Make one with: "
            f"sftknow board build --out {site}"
        )
    handler = functools.partial(_Handler, directory=str(site))
    try:
        return http.server.ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise SettingsError(
            f"Port {port} of {HOST} cannot be used ({error.strerror}). Choose another with --port, "
            "or leave it out for a free one."
        ) from error
