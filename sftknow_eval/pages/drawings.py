"""Vega-Lite drawn as SVG; a drawing can be kept, as starting to draw takes a second."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from sftknow_eval.artifacts import atomic_path

VEGA_LITE = "6.4"
MOST_KEPT = 256
_kept: ContextVar[Path | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def drawings_kept(folder: Path) -> Iterator[None]:
    """Keep drawings in a folder: what was drawn there before is not drawn again.

    Of more than `MOST_KEPT` the ones unused for longest are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = _kept.set(folder)
    try:
        yield
    finally:
        _kept.reset(token)
    held = sorted(folder.glob("*.svg"), key=lambda path: path.stat().st_mtime_ns)
    for path in held[:-MOST_KEPT]:
        path.unlink()


def drawn(spec: str) -> str:
    """Return a specification as SVG, as drawn by this version of Vega."""
    folder = _kept.get()
    if folder is None:
        return _draw(spec)
    made_by = f"{importlib.metadata.version('vl-convert-python')} {VEGA_LITE} "
    path = folder / f"{hashlib.sha256((made_by + spec).encode()).hexdigest()}.svg"
    try:
        found = path.read_text(encoding="utf-8")
        path.touch()
    except OSError:
        found = _draw(spec)
        with atomic_path(path) as partial:
            partial.write_text(found, encoding="utf-8")
    return found


@functools.lru_cache(maxsize=256)
def _draw(spec: str) -> str:
    from vl_convert import vegalite_to_svg

    return str(vegalite_to_svg(spec, vl_version=VEGA_LITE))
