"""`sftknow mastery`: the table shown, as JSON, pushed and pulled."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli_calls import Sftknow

from sftknow_eval.mastery import share
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts

META = TableMeta(
    base="a/base",
    revision=None,
    fingerprint="ab" * 32,
    data="small",
    facts_digest="cd" * 32,
    templates_digest="ef" * 32,
    n_templates=2,
    samples_per_template=4,
    temperature=0.7,
    max_tokens=32,
    seed=7,
    selection={"splits": ["train", "test"], "relations": None, "limit": None},
    engine={"backend": "hf", "versions": {"torch": "2"}},
)


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Facts of each of the strata 0 to 4 in ID train, of stratum 0 and 4 in OOD test."""
    facts = [_fact("P19", "id", "train", i) for i in range(5)]
    facts += [_fact("P106", "ood", "test", i) for i in range(2)]
    verdicts = np.zeros((7, 2, 4), bool)
    for i in range(5):
        verdicts[i].flat[: 2 * i] = True  # 0, 2, 4, 6, 8 of 8: one of each stratum
    verdicts[6] = True
    folder = tmp_path / "probe"
    MasteryTable.build(facts, pack_verdicts(verdicts), META).write(folder / "mastery.parquet")
    return folder


def _fact(relation: str, domain: str, split: str, row: int) -> Fact:
    return Fact(
        f"{relation}-{split}-{row:04d}", relation, domain, split, "s", f"{row}?", "a", ("a",)  # type: ignore[arg-type]
    )  # fmt: skip


def cells(out: str, first: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", row.strip()) for row in out.splitlines() if first in row]


def test_the_table_is_shown_by_default(sftknow: Sftknow, table: Path) -> None:
    called = sftknow("mastery", table)
    assert (called.code, called.err) == (0, "")
    for words in ("a/base", "ab" * 32, "7 of small", "2 templates x 4", "seed 7", "torch 2"):
        assert words in called.out
    assert ["ID train", "1", "1", "1", "1", "1", "5", "0.500"] in cells(called.out, "ID train")
    assert ["OOD test", "1", "0", "0", "0", "1", "2", "0.500"] in cells(called.out, "OOD test")
    (row,) = cells(called.out, "P19 (id)")
    assert row == ["P19 (id)", "1", "1", "1", "1", "1", "5", "0.500", "0"]
    # Template 0 holds the first four of each fact's eight verdicts: 0+2+4+4+4 of 20.
    assert ["0", "70.0", "50.0"] in cells(called.out, "70.0")
    assert sftknow("mastery", "show", table / "mastery.parquet").out == called.out


def test_json_holds_counts_and_nothing_else_is_printed(sftknow: Sftknow, table: Path) -> None:
    for command in (("mastery", table, "--json"), ("mastery", "--json", table)):
        called = sftknow(*command)
        summary = json.loads(called.out)
        assert summary["groups"][0] == {
            "domain": "id",
            "split": "train",
            "facts": 5,
            "strata": [1, 1, 1, 1, 1],
            "n_correct": 20,
            "n_samples": 40,
            "mean_r": 0.5,
        }
        assert summary["templates"][0]["n_correct"] == [14, 6]
        assert summary["probe"]["engine"]["backend"] == "hf"


def test_a_group_still_has_its_help_and_no_arguments_show_it(sftknow: Sftknow) -> None:
    for command in (("mastery", "--help"), ("mastery", "-h")):
        called = sftknow(*command)
        assert called.code == 0
        assert "push" in called.out
        assert "pull" in called.out
    assert "push" in "".join(vars(sftknow("mastery")).get(name) or "" for name in ("out", "err"))


@pytest.mark.parametrize("what", ["missing", "not parquet", "unfinished"])
def test_what_is_no_table_is_named(sftknow: Sftknow, tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    if what == "not parquet":
        path.write_text("a,b")
    elif what == "unfinished":
        path.mkdir()
        (path / "probe.json").write_text("{}")
    called = sftknow("mastery", path)
    assert called.code == 2
    assert called.err.startswith("Error: ")
    assert "thing" in called.err
    assert "sftknow probe" in " ".join(called.err.split()) or what == "not parquet"


def test_push_and_pull_say_the_commit(
    sftknow: Sftknow, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    class OneCommit:
        def create_repo(self, repo_id: str, **_: object) -> None:
            self.repo = repo_id

        def upload_folder(self, *, folder_path: str, **_: object) -> SimpleNamespace:
            self.table = (Path(folder_path) / "mastery.parquet").read_bytes()
            return SimpleNamespace(oid="c0ffee")

        def dataset_info(self, repo_id: str, *, revision: str | None) -> SimpleNamespace:
            if revision not in (None, "c0ffee"):
                raise OSError("404")
            return SimpleNamespace(sha="c0ffee")

        def hf_hub_download(self, *_: object, **__: object) -> str:
            (tmp_path / "fetched").write_bytes(self.table)
            return str(tmp_path / "fetched")

    hub = OneCommit()
    monkeypatch.setattr(share, "default_hub", lambda: hub)
    called = sftknow("mastery", "push", table, "user/tables", "--private")
    assert called.code == 0
    assert "sftknow mastery pull user/tables --revision c0ffee" in called.out
    called = sftknow(
        "mastery", "pull", "user/tables", "--revision", "c0ffee", "--out", tmp_path / "here"
    )
    assert called.code == 0
    assert "at c0ffee" in called.out
    assert MasteryTable.read(tmp_path / "here").meta == META
    called = sftknow("mastery", "pull", "user/tables", "--revision", "other")
    assert called.code == 2
    assert "user/tables" in called.err
