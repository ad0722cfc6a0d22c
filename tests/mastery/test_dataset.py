"""Data sets: the paper's counts on the real archive, the filter by hand on a small one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.download import CONTENT_DIGEST, FACT_COUNTS


def test_the_real_archive_gives_the_papers_counts(real_archive: Path) -> None:
    dataset = open_dataset(real_archive)
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
    assert FactFiles(real_archive).digest() == CONTENT_DIGEST
    # Computed once by this code: mastery tables hold the facts' digests, so a change here, of an
    # alias too, makes every table of EntityQuestions one of other facts.
    digests = b"".join(fact.digest() for fact in dataset.probe_facts())
    assert hashlib.sha256(digests).hexdigest() == (
        "1e7e4c555ce73396a98060611430fbf71da0278818caa055cb57b8d81dca17bd"
    )


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


def test_out_of_domain_facts_are_probed_in_test_only(small_data: Path) -> None:
    chosen = open_dataset(small_data).probe_facts()
    assert {(f.split, f.domain) for f in chosen} == {
        ("train", "id"),
        ("dev", "id"),
        ("test", "id"),
        ("test", "ood"),
    }


def test_the_environment_names_the_data(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTKNOW_DATA", str(small_data))
    assert len(open_dataset().facts("dev")) == 15


def test_the_option_comes_before_the_environment_and_that_before_the_download(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTKNOW_DATA", str(tmp_path / "elsewhere"))
    assert open_dataset(small_data).name == small_data.name
    with pytest.raises(DataError, match="elsewhere does not exist"):
        open_dataset()
    monkeypatch.delenv("SFTKNOW_DATA")
    monkeypatch.setattr("sftknow_eval.mastery.download.entity_questions", lambda count: small_data)
    assert open_dataset().source == str(small_data)


def write(source: Path, relation: str, split: str, content: object) -> None:
    path = source / "dataset" / split / f"{relation}.{split}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def row(question: str, *answers: object) -> dict[str, object]:
    return {"question": question, "answers": list(answers)}


@pytest.fixture
def own_data(small_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_data, tmp_path / "data")


def test_every_reason_is_counted_and_the_first_of_repeated_questions_stays(own_data: Path) -> None:
    ada, bob = "Where was Ada born?", "Where was Bob born?"
    rows = [
        row(ada),  # no answer
        row(ada, "London", "Paris"),  # several: does not stand in the way of the next
        row(ada, "London"),
        row(bob, "Rome"),
        row(ada, "Paris"),  # repeated
        row(ada, "London"),  # repeated, whatever the answer
        row(bob, "Rome", "Rome"),  # several, though equal
    ]
    write(own_data, "P19", "test", rows)
    dataset = open_dataset(own_data)
    facts = dataset.facts("test", relations=["P19"])
    assert [(fact.id, fact.answer) for fact in facts] == [
        ("P19-test-0002", "London"),
        ("P19-test-0003", "Rome"),
    ]
    [count] = [c for c in dataset.counts() if (c.relation, c.split) == ("P19", "test")]
    assert (count.read, count.kept) == (7, 2)
    assert count.dropped == {"no answer": 1, "several answers": 2, "repeated question": 2}


def test_questions_repeat_within_a_domain_and_a_split_only(own_data: Path) -> None:
    # P19 and P20 are ID here, P106 OOD; all three ask the same question.
    entry = "question: 'What about {subject}?'"
    (own_data / "relations.yaml").write_text(
        f"P19: {{label: birth, domain: id, {entry}}}\n"
        f"P20: {{label: death, domain: id, {entry}}}\n"
        f"P106: {{label: work, domain: ood, {entry}}}\n"
    )
    for split in ("train", "dev", "test"):
        for relation in ("P19", "P20", "P106"):
            write(own_data, relation, split, [row("What about Ada?", relation)])
    dataset = open_dataset(own_data)
    for split in ("train", "dev", "test"):
        kept = [(fact.relation, fact.answer) for fact in dataset.facts(split)]  # type: ignore[arg-type]
        assert kept == [("P19", "P19"), ("P106", "P106")]


def test_facts_are_ordered_by_number_of_relation_and_row(small_data: Path) -> None:
    ids = [fact.id for fact in open_dataset(small_data).facts("test")]
    assert ids == [f"{r}-test-{n:04d}" for r in ("P19", "P20", "P106") for n in range(5)]


def test_domain_and_relations_choose(small_data: Path) -> None:
    dataset = open_dataset(small_data)
    assert {f.relation for f in dataset.facts("test", "ood")} == {"P106"}
    assert {f.relation for f in dataset.facts("test", relations=("P20", "P106"))} == {"P20", "P106"}
    assert dataset.facts("test", "ood", ["P19"]) == []
    for wrong in (["P19", "P999"], "P19"):
        with pytest.raises(DataError, match="Unknown relation"):
            dataset.facts("test", relations=wrong)
    with pytest.raises(DataError, match="Unknown split 'validation'"):
        dataset.facts("validation")  # type: ignore[arg-type]


def test_relations_aliases_and_templates_come_from_beside_the_data_or_the_package(
    own_data: Path, tmp_path: Path
) -> None:
    assert open_dataset(own_data).origins == {
        "relations": str(own_data / "relations.yaml"),
        "aliases": str(own_data / "aliases.json"),
        "templates": str(own_data / "templates.yaml"),
    }
    (own_data / "aliases.json").unlink()
    # Other facts than EntityQuestions': its aliases are not theirs.
    assert open_dataset(own_data).origins["aliases"] == "none"
    assert open_dataset(own_data).facts("test")[2].aliases == ("New York City",)
    other = tmp_path / "other.json"
    other.write_text('{"New York City": ["Big Apple", "New York City"]}')
    dataset = open_dataset(own_data, aliases=other)
    assert dataset.facts("test")[2].aliases == ("New York City", "Big Apple")
    (own_data / "relations.yaml").rename(tmp_path / "list.yaml")
    (own_data / "templates.yaml").unlink()
    dataset = open_dataset(own_data, relations=tmp_path / "list.yaml")
    assert dataset.origins == {
        "relations": str(tmp_path / "list.yaml"),
        "aliases": "packaged aliases.json",
        "templates": "packaged templates.yaml",
    }
    with pytest.raises(DataError, match=r"none\.yaml cannot be read: No such file"):
        open_dataset(own_data, relations=tmp_path / "none.yaml")


def test_malformed_rows_are_all_named(own_data: Path) -> None:
    write(
        *(own_data, "P19", "test"),
        [
            row("Where was Ada born?", "London"),
            row("Where was she from?", "London"),
            {"answers": ["London"]},
            {"question": "Where was Bob born?", "answers": "London"},
            "row",
            row("Where was Bob born?", ""),
            row("Where was Bob born?", 1),
            row("Where was  born?", "London"),
            row("Where was \ud800 born?", "London"),
            {"question": "Where was Bob born?"},
        ],
    )
    write(own_data, "P20", "test", '[{"question": ')
    with pytest.raises(DataError) as caught:
        open_dataset(own_data).facts("test")
    for part in (
        "row 1: 'Where was she from?' does not fit the question pattern 'Where was {subject} b",
        "row 2: question is missing",
        "row 3: answers are not a list: 'London'",
        "row 4: an object was expected, found 'row'",
        "row 5: an answer is empty",
        "row 6: an answer is no text: [1]",
        "row 7: 'Where was  born?' does not fit",
        "row 8: question is not valid Unicode",
        "row 9: answers are missing",
    ):
        assert f"P19.test.json, {part}" in str(caught.value)
    assert "P20.test.json is not JSON" in str(caught.value)
    assert "row 0" not in str(caught.value)
    # Nothing of a faulty split is used, and the others are.
    assert len(open_dataset(own_data).facts("dev")) == 15


def test_of_many_malformed_rows_ten_are_named_and_the_rest_counted(own_data: Path) -> None:
    write(own_data, "P19", "test", ["row"] * 25)
    with pytest.raises(DataError, match="and 15 more") as caught:
        open_dataset(own_data).facts("test")
    assert str(caught.value).count("an object was expected") == 10


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda d: (d / "dataset/test/P20.test.json").unlink(), "P20.test.json"),
        (lambda d: (d / "dataset/test/P20.test.json").write_text('[{"question": '), "cut off"),
        (lambda d: (d / "aliases.json").write_text('{"A": [""]}'), "alias .. is empty"),
        (lambda d: (d / "relations.yaml").write_text("P19: ["), "not YAML"),
        (lambda d: (d / "dataset/test/P20.test.json").write_text("{}"), "not a JSON list"),
        (lambda d: (d / "dataset/test/P20.test.json").write_bytes(b'["\xff"]'), "not JSON"),
        (lambda d: shutil.rmtree(d / "dataset/test"), "split test is missing"),
        (lambda d: shutil.rmtree(d / "dataset"), "holds no facts"),
        (lambda d: shutil.rmtree(d), "does not exist"),
    ],
)
def test_missing_and_broken_files_are_named(own_data, break_it, named) -> None:  # type: ignore[no-untyped-def]
    break_it(own_data)
    with pytest.raises(DataError, match=named):
        open_dataset(own_data).facts("test")


def test_an_unlisted_relation_is_said_and_not_used(small_data: Path, tmp_path: Path) -> None:
    relations = tmp_path / "relations.yaml"
    relations.write_text("P19: {label: birth, domain: id, question: 'Where was {subject} born?'}\n")
    dataset = open_dataset(small_data, relations=relations)
    assert dataset.unlisted() == ["P106", "P20"]
    assert {fact.relation for fact in dataset.facts("test")} == {"P19"}
