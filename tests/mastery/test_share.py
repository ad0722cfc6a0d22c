"""Sharing tables, against a stand-in of the hub's client that keeps commits in folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi

from sftknow_eval.errors import MasteryError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.find import find_mastery
from sftknow_eval.mastery.share import pull, push
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts


class FolderHub:
    """The hub in a folder: ROOT/REPO/COMMIT/FILES, newest commit in ROOT/REPO/main."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        assert (repo_type, exist_ok) == ("dataset", True)
        self.private.setdefault(repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return repo_id

    def upload_folder(
        self, *, repo_id: str, folder_path: str | Path, repo_type: str, commit_message: str
    ) -> SimpleNamespace:
        assert repo_type == "dataset"
        assert commit_message
        repo = self.root / repo_id
        oid = hashlib.sha1(str(len(list(repo.iterdir()))).encode()).hexdigest()
        shutil.copytree(folder_path, repo / oid)
        (repo / "main").write_text(oid)
        return SimpleNamespace(oid=oid)

    def dataset_info(self, repo_id: str, *, revision: str | None) -> SimpleNamespace:
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404: no dataset {repo_id}")
        name = revision or "main"
        file = self.root / repo_id / name
        if not file.exists():
            raise OSError(f"404: no revision {name}")
        return SimpleNamespace(sha=file.read_text() if file.is_file() else name)

    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str, revision: str) -> str:
        assert len(revision) == 40, "a pull is pinned by commit"
        path = self.root / repo_id / revision / filename
        if not path.is_file():
            raise OSError(f"404: no {filename}")
        return str(path)


def table_of(data: str = "entity_questions", hits: int = 3) -> MasteryTable:
    facts = [
        Fact(f"P19-test-{i:04d}", "P19", "id", "test", "X", f"Where was X{i}?", "Rome", ("Rome",))
        for i in range(6)
    ]
    verdicts = np.zeros((6, 3, 5), bool)
    verdicts[:hits, 0] = True
    meta = TableMeta(
        base="a/base",
        revision="v1",
        fingerprint="a" * 64,
        data=data,
        facts_digest="f" * 64,
        templates_digest="t" * 64,
        n_templates=3,
        samples_per_template=5,
        temperature=0.7,
        max_tokens=32,
        seed=0,
        engine={"backend": "hf", "dtype": "float32"},
    )
    return MasteryTable.build(facts, pack_verdicts(verdicts), meta)


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    table_of().write(tmp_path / "probe" / "mastery.parquet")
    return tmp_path / "probe" / "mastery.parquet"


def test_a_pushed_table_comes_back_as_the_same_bytes(
    tmp_path: Path, hub: FolderHub, table: Path
) -> None:
    commit = push(table, "user/tables", hub=hub)
    shared = pull("user/tables", out=tmp_path / "here", hub=hub)
    assert shared.commit == commit
    assert shared.table.read_bytes() == table.read_bytes()
    origin = json.loads((tmp_path / "here" / "origin.json").read_text())
    assert (origin["repo"], origin["commit"]) == ("user/tables", commit)


def test_a_pulled_table_is_found_by_its_base(hub: FolderHub, table: Path) -> None:
    push(table.parent, "user/tables", hub=hub)
    pull("user/tables", hub=hub)
    assert find_mastery(base="a/base").meta == table_of().meta


def test_a_revision_pins_an_earlier_table(tmp_path: Path, hub: FolderHub, table: Path) -> None:
    first = push(table, "user/tables", hub=hub)
    table_of(hits=5).write(table)
    second = push(table, "user/tables", hub=hub)
    assert first != second
    pinned = pull("user/tables", revision=first, out=tmp_path / "pinned", hub=hub)
    newest = pull("user/tables", out=tmp_path / "newest", hub=hub)
    assert (pinned.commit, newest.commit) == (first, second)
    assert int(MasteryTable.read(pinned.table).column("n_correct").sum()) == 3 * 5
    assert int(MasteryTable.read(newest.table).column("n_correct").sum()) == 5 * 5


def test_privacy_is_what_was_asked_for(hub: FolderHub, table: Path) -> None:
    push(table, "user/open", hub=hub)
    push(table, "user/closed", private=True, hub=hub)
    assert hub.private == {"user/open": False, "user/closed": True}


@pytest.mark.parametrize(("data", "licence"), [("entity_questions", "mit"), ("world-demo", None)])
def test_the_card_states_method_settings_and_licence(
    tmp_path: Path, hub: FolderHub, data: str, licence: str | None
) -> None:
    table_of(data).write(tmp_path / "mastery.parquet")
    commit = push(tmp_path, "user/tables", hub=hub)
    card = (hub.root / "user/tables" / commit / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front.get("license") == licence
    assert ("MIT licence" in card) == (licence == "mit")
    for words in ("a/base", "revision v1", "a" * 64, "temperature: 0.7", "dtype float32", data):
        assert words in card
    assert "| ID test | 6 | 3 | 0 | 3 | 0 | 0 |" in card  # R = 0 for three, 5/15 for three


def test_what_the_hub_refuses_is_an_error_that_names_the_dataset(
    tmp_path: Path, hub: FolderHub, table: Path
) -> None:
    with pytest.raises(MasteryError, match=r"'user/none' could not be found.*404"):
        pull("user/none", hub=hub)
    push(table, "user/tables", hub=hub)
    with pytest.raises(MasteryError, match=r"no revision v9.*login"):
        pull("user/tables", revision="v9", hub=hub)
    for file in (hub.root / "user/tables").glob("*/mastery.parquet"):
        file.write_text("something else")
    with pytest.raises(MasteryError, match="not readable as a mastery table"):
        pull("user/tables", out=tmp_path / "here", hub=hub)
    assert not (tmp_path / "here").exists()


def test_something_else_is_not_pushed(tmp_path: Path, hub: FolderHub) -> None:
    (tmp_path / "mastery.parquet").write_text("something else")
    with pytest.raises(MasteryError):
        push(tmp_path, "user/tables", hub=hub)
    assert not hub.root.exists()


def test_the_stand_in_takes_the_calls_of_the_real_client() -> None:
    # Every keyword used here must exist in the installed huggingface_hub.
    import inspect

    for name in ("create_repo", "upload_folder", "dataset_info", "hf_hub_download"):
        stand_in = inspect.signature(getattr(FolderHub, name)).parameters
        real = inspect.signature(getattr(HfApi, name)).parameters
        assert set(stand_in) <= set(real)
