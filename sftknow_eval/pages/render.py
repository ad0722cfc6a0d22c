"""Pages from templates, under a Content-Security-Policy that lets nothing else in.

A page is either one file with everything in it (a report), or one of a site's, whose style
sheet and scripts are files beside it. Neither loads anything from elsewhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sftknow_eval import __version__
from sftknow_eval.artifacts import atomic_path, cache_dir
from sftknow_eval.pages.bundle import HERE, Asset, script, theme

ASSET_FOLDER = "assets"
_ALWAYS_CLOSED = (
    *("default-src 'none'", "base-uri 'none'", "form-action 'none'", "object-src 'none'"),
    "img-src 'self' data:",
)


class Pages:
    """Renders templates of this room and of others.

    Args:
        templates: folders with further templates; they extend `layout.html`.
        site: whether style sheet and scripts are files beside the pages.
        extra: style sheets and scripts of the caller's own.
    """

    def __init__(
        self, templates: Sequence[Path] = (), *, site: bool = False, extra: Sequence[Asset] = ()
    ) -> None:
        self._site = site
        self._extra = {asset.name: asset for asset in extra}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([*map(str, templates), str(HERE / "templates")]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            bytecode_cache=_compiled(),
        )
        self._environment.globals["version"] = __version__
        self._used: dict[str, Asset] = {}

    def page(
        self,
        template: str,
        *,
        title: str,
        scripts: Sequence[str] = (),
        root: str = "",
        **context: Any,
    ) -> str:
        """Return a page.

        Args:
            template: file name of the template.
            title: of the page.
            scripts: names of scripts, in order: `bundle.CHART_SCRIPTS` and the caller's own.
            root: from the page to the site's top, as in `../`.
            context: what the template needs.
        """
        styles = [theme(), *(a for a in self._extra.values() if a.kind == "style")]
        programs = [self._asset(name) for name in ("theme.js", *scripts)]
        self._used |= {asset.name: asset for asset in (*styles, *programs)}
        return self._environment.get_template(template).render(
            title=title,
            root=root,
            linked=self._site,
            styles=[_for_template(asset) for asset in styles],
            programs=[_for_template(asset) for asset in programs],
            policy=site_policy() if self._site else _policy(styles, programs),
            **context,
        )

    def write_assets(self, top: Path) -> list[Path]:
        """Write what the pages made so far link to, under `top`; return the files."""
        written = []
        for asset in self._used.values():
            path = top / ASSET_FOLDER / asset.name
            with atomic_path(path) as partial:
                partial.write_text(asset.text, encoding="utf-8")
            written.append(path)
        return written

    def _asset(self, name: str) -> Asset:
        return self._extra.get(name) or script(name)


def _compiled() -> jinja2.BytecodeCache | None:
    """Return where compiled templates are kept, as Python keeps compiled modules; or nowhere."""
    folder = cache_dir() / "templates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return jinja2.FileSystemBytecodeCache(str(folder)) if os.access(folder, os.W_OK) else None


@functools.cache
def _for_template(asset: Asset) -> dict[str, Any]:
    # Their own text is what the policy's hashes are of; it holds no closing tag.
    assert not any(end in asset.text.lower() for end in ("</script", "</style"))
    return {"href": f"{ASSET_FOLDER}/{asset.name}", "text": Markup(asset.text)}


def _policy(styles: Sequence[Asset], programs: Sequence[Asset]) -> str:
    """Return the policy of a page that holds everything: only these very texts may run."""
    return "; ".join(
        [
            *_ALWAYS_CLOSED,
            f"style-src {' '.join(map(_hash, styles))}",
            f"script-src {' '.join(map(_hash, programs))}",
        ]
    )


def site_policy() -> str:
    """Return the policy of a page of a site: only files of the site itself."""
    return "; ".join([*_ALWAYS_CLOSED, "style-src 'self'", "script-src 'self'"])


def _hash(asset: Asset) -> str:
    raw = hashlib.sha256(asset.text.encode()).digest()
    return f"'sha256-{base64.b64encode(raw).decode()}'"
