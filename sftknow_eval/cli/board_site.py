"""`sftknow board build`, `serve` and `publish`: the leaderboard's site."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_SITE = Path("site")


class Host(StrEnum):
    """Where a site can be published."""

    GITHUB = "github"
    HUGGINGFACE = "huggingface"


def build(
    root: Annotated[Path, typer.Option(help="Folder with submissions/ and mastery/.")] = Path(
        "leaderboard"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the site; replaced as a whole.")] = _SITE,
    dataset: Annotated[
        str, typer.Option(help="The benchmark's data set on the Hub, for .eval_results files.")
    ] = "sftknow/entity-questions",
    address: Annotated[
        str | None, typer.Option(help="Where the site will be public, for links in exports.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make every file again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Build the site: static pages that open from a disk and from any host.

    Submissions are verified first; refused ones are listed on the rules page and keep no other
    from being shown. What did not change since the last build is kept.
    """
    from sftknow_eval.leaderboard.site.collecting import collecting_nothing

    with collecting_nothing():
        from sftknow_eval.leaderboard.site.build import Options, build, summary

        built = build(root, out, Options(dataset=dataset, address=address, fresh=fresh))
    found = summary(built)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(
        f"Boards: {found['boards']}. Rows with the boards' own controls: {found['rows']}. Refused: "
        f"{found['refused']}. Files: {found['files_made']} made, {found['files_kept']} kept."
    )
    if found["refused"]:
        typer.echo(f"For the reasons: sftknow board verify {root}")
    typer.echo(f"Open {found['index']}")


def serve(
    site: Annotated[Path, typer.Argument(help="A built site.")] = _SITE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Show a built site at http://127.0.0.1, to this machine only; Ctrl-C ends it."""
    from sftknow_eval.leaderboard.site.serve import HOST, server

    with server(site, port) as running:
        typer.echo(f"http://{HOST}:{running.server_address[1]}/ (Ctrl-C ends it)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Ended.")


def publish(
    to: Annotated[Host, typer.Option(help="GitHub Pages, or a Hugging Face static Space.")],
    target: Annotated[
        str,
        typer.Argument(help="The Git repository's address or path, or the Space as OWNER/NAME."),
    ],
    site: Annotated[Path, typer.Option(help="A built site.")] = _SITE,
    branch: Annotated[str, typer.Option(help="Branch for GitHub Pages.")] = "gh-pages",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, and send nothing.")
    ] = False,
) -> None:
    """Publish a built site: exactly the files that the build made."""
    from sftknow_eval.leaderboard.site.publish import parcel, to_github_pages, to_space

    sent = parcel(site)
    if dry_run:
        for name in sent.names:
            typer.echo(name)
        typer.echo(f"{len(sent.names)} files, {sent.size / 1e6:.1f} MB, would go to {target}.")
        return
    if to is Host.GITHUB:
        commit = to_github_pages(site, target, branch)
        typer.echo(
            f"{len(sent.names)} files are on the branch {branch} of {target} ({commit[:12]})."
        )
    else:
        typer.echo(f"{len(sent.names)} files are at {to_space(site, target)}")
