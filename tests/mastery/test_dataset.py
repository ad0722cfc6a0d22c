"""Data sets: the paper's counts on the real archive, the filter by hand on a small one."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import REAL_ARCHIVE

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.download import CONTENT_DIGEST, FACT_COUNTS


@pytest.mark.skipif(not REAL_ARCHIVE.is_file(), reason="the EntityQuestions archive is not here")
def test_the_real_archive_gives_the_papers_counts() -> None:
    dataset = open_dataset(REAL_ARCHIVE)
    # Tables 1 and 8: the sums over strata of any model.
    assert FACT_COUNTS == {
        "train id": 75_944,
        "test id": 9_555,
        "test ood": 11_613,
        "dev id": 9_580,
    }
    for name, expected in FACT_COUNTS.items():
        assert len(dataset.facts(*name.split())) == expected  # type: ignore[arg-type]
    assert len(dataset.probe_facts()) == 106_692
    assert all(c.read == c.kept + sum(c.dropped.values()) for c in dataset.counts())
    assert sum(c.read for c in dataset.counts()) == 220_703
    assert FactFiles(REAL_ARCHIVE).digest() == CONTENT_DIGEST


def test_the_filter_by_hand(small_data: Path) -> None:
    dataset = open_dataset(small_data)
    # P19 has 5 facts and one repeated question, P20 5 and one row with two answers.
    by_relation = {(c.relation, c.split): c for c in dataset.counts()}
    assert by_relation["P19", "test"].dropped == {"repeated question": 1}
    assert by_relation["P20", "test"].dropped == {"several answers": 1}
    assert by_relation["P19", "test"].read == 6
    facts = dataset.facts("test", "id")
    assert [fact.id for fact in facts[:2]] == ["P19-test-0000", "P19-test-0001"]
    assert len(facts) == 10
    hopper = facts[2]
    assert (hopper.subject, hopper.answer) == ("Grace Hopper", "New York City")
    assert hopper.aliases == ("New York City", "New York")


def test_out_of_domain_facts_are_studied_in_test_only(small_data: Path) -> None:
    chosen = open_dataset(small_data).probe_facts()
    assert {(f.split, f.domain) for f in chosen} == {
        ("train", "id"),
        ("dev", "id"),
        ("test", "id"),
        ("test", "ood"),
    }


@pytest.mark.parametrize("layout", ["inside", "itself", "below", "zip", "zip-below"])
def test_a_folder_or_zip_is_read_in_place(small_data: Path, tmp_path: Path, layout: str) -> None:
    expected = open_dataset(small_data).facts("test")
    if layout == "itself":
        source = small_data / "dataset"
    elif layout == "below":
        shutil.copytree(small_data, tmp_path / "wrapped" / "archive-1")
        source = tmp_path / "wrapped"
    elif layout.startswith("zip"):
        source = tmp_path / "small.zip"
        prefix = "archive-1/" if layout == "zip-below" else ""
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(small_data.rglob("*.*")):
                archive.write(path, prefix + path.relative_to(small_data).as_posix())
    else:
        source = small_data
    dataset = open_dataset(source)
    assert dataset.facts("test") == expected
    assert dataset.templates_file.read_text(encoding="utf-8").startswith("P19:")


def test_the_environment_names_the_data(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTKNOW_DATA", str(small_data))
    assert len(open_dataset().facts("dev")) == 15


def test_malformed_rows_are_all_named(small_data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    rows = [
        {"question": "Where was Ada born?", "answers": ["London"]},
        {"question": "Where was she from?", "answers": ["London"]},
        {"answers": ["London"]},
        {"question": "Where was Bob born?", "answers": "London"},
        "row",
    ]
    (source / "dataset" / "test" / "P19.test.json").write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        open_dataset(source).facts("test")
    for number in (1, 2, 3, 4):
        assert f"P19.test.json, row {number}:" in str(caught.value)
    assert "row 0" not in str(caught.value)


def test_all_faults_of_a_relation_list_are_named(small_data: Path, tmp_path: Path) -> None:
    relations = tmp_path / "relations.yaml"
    relations.write_text(
        "P19: {label: birth, domain: in, question: 'Where was {subject} born?'}\n"
        "P20: {domain: id, question: 'Where did he die?', extra: 1}\n"
        "capital: {label: x, domain: id, question: '{subject}?'}\n"
    )
    with pytest.raises(DataError) as caught:
        open_dataset(small_data, relations=relations)
    for part in ("P19: domain is 'in'", "P20: label", "P20: question", "'extra'", "capital:"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda d: (d / "dataset/test/P20.test.json").unlink(), "P20.test.json"),
        (lambda d: (d / "dataset/test/P20.test.json").write_text('[{"question": '), "cut off"),
        (lambda d: (d / "aliases.json").write_text('{"A": [""]}'), "alias .. is empty"),
        (lambda d: (d / "relations.yaml").write_text("P19: ["), "not YAML"),
        (lambda d: shutil.rmtree(d / "dataset"), "holds no facts"),
        (lambda d: shutil.rmtree(d), "does not exist"),
    ],
)
def test_missing_and_broken_files_are_named(small_data, tmp_path, break_it, named) -> None:  # type: ignore[no-untyped-def]
    source = shutil.copytree(small_data, tmp_path / "data")
    break_it(source)
    with pytest.raises(DataError, match=named):
        open_dataset(source).facts("test")


def test_a_truncated_zip_is_named(small_data: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted(small_data.rglob("*.json")):
            archive.write(path, path.relative_to(small_data).as_posix())
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.zip is not a whole zip"):
        open_dataset(cut)


def test_an_unlisted_relation_is_said_and_not_used(small_data: Path, tmp_path: Path) -> None:
    relations = tmp_path / "relations.yaml"
    relations.write_text("P19: {label: birth, domain: id, question: 'Where was {subject} born?'}\n")
    dataset = open_dataset(small_data, relations=relations)
    assert dataset.unlisted() == ["P106", "P20"]
    assert {fact.relation for fact in dataset.facts("test")} == {"P19"}
