"""What pages are made of besides their text: the theme, our scripts, the vendored ones."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sftknow_eval.errors import DataError
from sftknow_eval.pages import palette

HERE = Path(__file__).parent
VENDORED = HERE / "assets"

_CHARTS = {
    "vega.js": "vega/vega.min.js",
    "vega-lite.js": "vega-lite/vega-lite.min.js",
    "vega-embed.js": "vega-embed/vega-embed.min.js",
    "vega-interpreter.js": "vega-interpreter/vega-interpreter.js",
}
_SCRIPTS = {**_CHARTS, "datatables.js": "datatables/dataTables.min.js"}
# In the order in which they need each other.
CHART_SCRIPTS = (*_CHARTS, "charts.js")

_IMPORT = "import { ascending, isString, DisallowedObjectProperties } from 'vega-util';"
_EXPORT = "export { expression as expressionInterpreter };"


@dataclass(frozen=True, slots=True)
class Asset:
    """A style sheet or script by its file name."""

    name: str
    text: str

    @property
    def kind(self) -> Literal["style", "script"]:
        """Return what it is, by its ending."""
        return "style" if self.name.endswith(".css") else "script"


def theme() -> Asset:
    """Return the style sheet of all pages."""
    return Asset("theme.css", palette.css() + (HERE / "theme.css").read_text(encoding="utf-8"))


@functools.lru_cache
def script(name: str) -> Asset:
    """Return one of `CHART_SCRIPTS`, `datatables.js` or `theme.js`.

    Raises:
        DataError: a vendored file is not the one that was checked in.
    """
    if name not in _SCRIPTS:
        return Asset(name, (HERE / name).read_text(encoding="utf-8"))
    path = _SCRIPTS[name]
    raw = (VENDORED / path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != _digests()[path]:
        raise DataError(
            f"{VENDORED / path} is not the file that sftknow-eval came with: its SHA-256 is not "
            "that of SHA256SUMS. Install the package again."
        )
    text = raw.decode()
    # Points browsers' developer tools to a file that is not there.
    text = "\n".join(line for line in text.splitlines() if "sourceMappingURL" not in line)
    return Asset(name, _as_classic(text) if name == "vega-interpreter.js" else text)


def _digests() -> dict[str, str]:
    lines = (VENDORED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split() for line in lines)}


def _as_classic(module: str) -> str:
    """Return the interpreter as a classic script: modules do not load from a disk.

    Its imports are part of Vega's bundle, under the same names.
    """
    if _IMPORT not in module or _EXPORT not in module:
        raise DataError("vega-interpreter.js does not begin and end as expected; see its README.")
    body = module.replace(
        _IMPORT, "const { ascending, isString, DisallowedObjectProperties }=vega;"
    )
    body = body.replace(_EXPORT, "vega.expressionInterpreter = expression;")
    return f"(function () {{\n'use strict';\n{body}\n}})();"
