"""Put a built site on GitHub Pages or into a Hugging Face static Space.

Exactly the files that `site.json` lists are sent: what else lies in the folder stays at home.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftknow_eval.errors import SettingsError
from sftknow_eval.leaderboard.site.files import SITE_NAME, earlier_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SPACE_CARD = """---
title: {title}
sdk: static
app_file: index.html
pinned: false
---

A leaderboard of fine-tuning strategies, built by `sftknow board build`. The pages are made from
a repository of submissions: do not edit them here.
"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What would be published.

    Attributes:
        names: the files' names inside the site, sorted.
        size: their bytes together.
    """

    names: tuple[str, ...]
    size: int


def parcel(site: Path) -> Parcel:
    """Return the files of a built site.

    Raises:
        SettingsError: there is no site, or a file that it lists is missing or changed.
    """
    if not (site / SITE_NAME).is_file():
        raise SettingsError(f"{site} holds no built site. Make one with: sftknow board build")
    files = earlier_files(site)
    for name, (_, size) in files.items():
        path = site / name
        if not path.is_file() or path.is_symlink() or path.stat().st_size != size:
            raise SettingsError(
                f"{path} is missing or is not the file that was built. Build again with: "
                f"sftknow board build --out {site}"
            )
    names = tuple(sorted([*files, SITE_NAME]))
    return Parcel(names, sum((site / name).stat().st_size for name in names))


def to_github_pages(site: Path, repository: str, branch: str = "gh-pages") -> str:
    """Commit the site to a branch of a Git repository and push it; return the commit's id.

    The branch keeps its history: nothing is forced. Git's own credentials are used.

    Raises:
        SettingsError: Git is missing, or refuses.
    """
    sent = parcel(site)
    with tempfile.TemporaryDirectory(prefix="sftknow-pages-") as folder:
        work = Path(folder) / "work"
        _git("init", "--quiet", f"--initial-branch={branch}", str(work))
        _git("remote", "add", "origin", "--", _address(repository), at=work)
        if _git("ls-remote", "--heads", "origin", f"refs/heads/{branch}", at=work).strip():
            _git("fetch", "--quiet", "--depth=1", "origin", f"refs/heads/{branch}", at=work)
            _git("reset", "--quiet", "--soft", "FETCH_HEAD", at=work)
        _stage(site, sent.names, work)
        (work / ".nojekyll").write_text("")
        _git("add", "--all", "--force", ".", at=work)
        if _git("status", "--porcelain", at=work).strip():
            author = ("-c", "user.name=sftknow board", "-c", "user.email=board@localhost")
            _git(*author, "commit", "--quiet", "-m", "Publish the board", at=work)
            _git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", at=work)
        return _git("rev-parse", "HEAD", at=work).strip()


def to_space(
    site: Path, space: str, *, title: str = "Fine-tuning leaderboard", api: HfApi | None = None
) -> str:
    """Upload the site as a static Space; return its address.

    Files that an earlier upload left there and that are not part of the site are removed. The
    Hub, and who one is there, are those of `api`; by default of `hf auth login`.

    Raises:
        SettingsError: the Hub refuses, or cannot be reached.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    sent, api = parcel(site), api or HfApi()
    try:
        api.create_repo(space, repo_type="space", space_sdk="static", exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="sftknow-space-") as folder:
            _stage(site, sent.names, Path(folder))
            (Path(folder) / "README.md").write_text(_SPACE_CARD.format(title=title))
            api.upload_folder(
                repo_id=space,
                repo_type="space",
                folder_path=folder,
                commit_message="Publish the board",
                delete_patterns="*",
            )
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError) as error:
        raise SettingsError(
            f"The Space '{space}' could not be written: {error}. Log in with `hf auth login`, and "
            "check that HF_HUB_OFFLINE is not set."
        ) from error
    return f"{api.endpoint}/spaces/{space}"


def _stage(site: Path, names: Sequence[str], folder: Path) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site / name, path)


def _address(repository: str) -> str:
    path = Path(repository)
    return str(path.resolve()) if path.exists() else repository


def _git(*arguments: str, at: Path | None = None) -> str:
    command = ["git", *(("-C", str(at)) if at else ()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SettingsError("Publishing to GitHub Pages needs git, which was not found.") from error
    if done.returncode:
        raise SettingsError(
            f"git {arguments[0]} failed: {done.stderr.strip() or 'no message'}. Check the "
            "repository's address and that you may push to it."
        )
    return done.stdout
