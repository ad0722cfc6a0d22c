"""Sharing mastery tables as Hugging Face datasets, pinned by commit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sftknow_eval.artifacts import atomic_path, cache_dir, write_json
from sftknow_eval.errors import MasteryError
from sftknow_eval.mastery.find import register
from sftknow_eval.mastery.report import summarise
from sftknow_eval.mastery.table import N_STRATA, TABLE_NAME, MasteryTable

ORIGIN_NAME = "origin.json"

T = TypeVar("T")


class Hub(Protocol):
    """The calls of `huggingface_hub.HfApi` that are used here."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any:
        """Make a dataset unless it is there."""

    def upload_folder(
        self, *, repo_id: str, folder_path: str | Path, repo_type: str, commit_message: str
    ) -> Any:
        """Upload a folder as one commit; the result has its `oid`."""

    def dataset_info(self, repo_id: str, *, revision: str | None) -> Any:
        """Resolve a revision; the result has its commit as `sha`."""

    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str, revision: str) -> Any:
        """Fetch one file; return its local path."""


@dataclass(frozen=True, slots=True)
class SharedTable:
    """A table on the hub, and where its copy is here."""

    repo: str
    commit: str
    table: Path


def push(
    table_path: str | Path, repo: str, *, private: bool = False, hub: Hub | None = None
) -> str:
    """Upload a table with a dataset card; return the commit that holds it.

    Raises:
        MasteryError: the file is not a mastery table, or the hub refused.
    """
    hub = hub or default_hub()
    table = MasteryTable.read(table_path)
    with tempfile.TemporaryDirectory() as folder:
        table.write(Path(folder) / TABLE_NAME)
        (Path(folder) / "README.md").write_text(dataset_card(table, repo), encoding="utf-8")
        _ask(
            repo,
            "made",
            lambda: hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True),
        )
        commit = _ask(
            repo,
            "uploaded to",
            lambda: hub.upload_folder(
                repo_id=repo,
                folder_path=folder,
                repo_type="dataset",
                commit_message=f"Mastery table of {table.meta.base}",
            ),
        )
    return str(commit.oid)


def pull(
    repo: str,
    *,
    revision: str | None = None,
    out: Path | None = None,
    hub: Hub | None = None,
) -> SharedTable:
    """Fetch a table, check it, store it with the commit it came from, and register it.

    Args:
        repo: dataset id on the hub.
        revision: branch, tag or commit; it is resolved to a commit first.
        out: folder for the table and `origin.json`; by default one in the cache.
        hub: the client.

    Raises:
        MasteryError: no such dataset or revision, or it holds no mastery table.
    """
    hub = hub or default_hub()
    commit = str(_ask(repo, "found", lambda: hub.dataset_info(repo, revision=revision)).sha)
    fetched = _ask(
        repo,
        "fetched from",
        lambda: hub.hf_hub_download(repo, TABLE_NAME, repo_type="dataset", revision=commit),
    )
    folder = out or cache_dir() / "pulled" / repo.replace("/", "--") / commit
    table = MasteryTable.read(str(fetched))
    path = folder / TABLE_NAME
    with atomic_path(path) as partial:
        partial.write_bytes(Path(str(fetched)).read_bytes())
    write_json(
        folder / ORIGIN_NAME,
        {
            "repo": repo,
            "revision": revision,
            "commit": commit,
            "base": table.meta.base,
            "fingerprint": table.meta.fingerprint,
        },
    )
    register(path)
    return SharedTable(repo, commit, path)


def dataset_card(table: MasteryTable, repo: str) -> str:
    """Return the README.md of a shared table: what it is, how it was made, how to use it."""
    meta = table.meta
    summary = summarise(table)
    rows = "\n".join(
        f"| {g['domain'].upper()} {g['split']} | {g['facts']} | "
        + " | ".join(str(n) for n in g["strata"])
        + " |"
        for g in summary["groups"]
    )
    # Only the data set whose licence is known is given one.
    entity_questions = meta.data == "entity_questions"
    licence = (
        "The facts are those of EntityQuestions (Sciavolino et al., 2021; MIT licence)."
        if entity_questions
        else f"The facts are those of the data set '{meta.data}'; see there for its licence."
    )
    front = "license: mit\n" if entity_questions else ""
    settings = {
        "base": f"{meta.base} (revision {meta.revision or 'default'})",
        "weight fingerprint": meta.fingerprint,
        "facts": f"{len(table)} of {meta.data}, digest {meta.facts_digest}",
        "templates": f"{meta.n_templates} per relation, digest {meta.templates_digest}",
        "samples per template": meta.samples_per_template,
        "temperature": meta.temperature,
        "new tokens at most": meta.max_tokens,
        "seed": meta.seed,
        "verdict": meta.rule,
        "answer-stop": meta.answer_stop,
        "engine": ", ".join(f"{name} {value}" for name, value in sorted(meta.engine.items())),
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in settings.items())
    header = "| facts of | all | " + " | ".join(f"stratum {i}" for i in range(N_STRATA)) + " |"
    return f"""---
{front}tags:
- sftknow
- mastery-table
---
# Mastery table of {meta.base}

How often the base model recalled each fact in {meta.n_samples} sampled completions, as counts
and verdict bits per fact (`{TABLE_NAME}`), made by `sftknow probe`. The method is that of Ye et
al., "Analyzing the Effects of Supervised Fine-Tuning on Model Knowledge from Token and
Parameter Levels" (EMNLP 2025). {licence}

{header}
|{"---|" * (N_STRATA + 2)}
{rows}

{lines}

Use it with `sftknow mastery pull {repo} --revision COMMIT`.
"""


def default_hub() -> Hub:
    """Return the client of the Hugging Face hub."""
    from huggingface_hub import HfApi

    hub: Hub = HfApi()
    return hub


def _ask(repo: str, what: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:  # the hub's client raises its own, the transport's and OSErrors
        reason = " ".join(str(error).split())
        raise MasteryError(
            f"The dataset '{repo}' could not be {what} on the Hugging Face hub: {reason}. Check "
            "its name and revision, the network and your login ('hf auth login')."
        ) from error
