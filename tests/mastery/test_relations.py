"""Relation lists and alias files: what is shipped, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.dataset import PACKAGED
from sftknow_eval.mastery.relations import read_aliases, read_relations

# The protocol's lists ("Facts").
ID = ["P17", "P19", "P20", "P36", "P69", "P131", "P159", "P276", "P495", "P740"]
OOD = [
    "P26",
    "P40",
    "P50",
    "P106",
    "P112",
    "P127",
    "P136",
    "P170",
    "P175",
    "P176",
    "P264",
    "P407",
    "P413",
    "P800",
]
SYNONYMS = Path(__file__).resolve().parents[3] / "shared" / "paper" / "synonyms.json"


def relations_of(text: str) -> None:
    read_relations(text.encode(), "list.yaml")


def test_the_shipped_relations_are_those_of_the_protocol() -> None:
    listed = read_relations((PACKAGED / "relations.yaml").read_bytes(), "relations.yaml")
    assert list(listed) == sorted([*ID, *OOD], key=lambda name: int(name[1:]))
    assert [name for name, relation in listed.items() if relation.domain == "id"] == ID
    # 24 fixed patterns; P131 and P276 share theirs.
    patterns = [relation.question for relation in listed.values()]
    assert len(set(patterns)) == 23
    assert listed["P131"].question == listed["P276"].question
    assert len({relation.label for relation in listed.values()}) == 24


def test_the_shipped_aliases_are_29_answers() -> None:
    shipped = read_aliases((PACKAGED / "aliases.json").read_bytes(), "aliases.json")
    assert len(shipped) == 29
    assert shipped["United States of America"] == ["USA", "United States"]


@pytest.mark.skipif(not SYNONYMS.is_file(), reason="the paper's alias table is not here")
def test_the_shipped_aliases_are_the_papers() -> None:
    shipped = read_aliases((PACKAGED / "aliases.json").read_bytes(), "aliases.json")
    assert shipped == json.loads(SYNONYMS.read_text(encoding="utf-8"))


def test_all_faults_of_a_relation_list_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        relations_of(
            "P19: {label: birth, domain: in, question: 'Where was {subject} born?'}\n"
            "P20: {domain: id, question: 'Where did he die?', extra: 1}\n"
            "P21: {label: x, domain: id, question: 'Is {subject} like {subject}?'}\n"
            "P22: {label: '', domain: id}\n"
            "P23: place\n"
            "capital: {label: x, domain: id, question: '{subject}?'}\n"
            "P24: {label: x, label: y, domain: id, question: '{subject}?'}\n"
            "P24: {label: x, domain: id, question: '{subject}?'}\n"
        )
    for part in (
        "list.yaml",
        "P19: domain is 'in'; id or ood was expected",
        "P20: 'extra' is unknown",
        "P20: label missing",
        "'Where did he die?' does not hold {subject}",
        "P21: question 'Is {subject} like {subject}?' holds {subject} 2 times",
        "P22: question missing",
        "P22: label is empty",
        "P23: label, domain and question were expected, found 'place'",
        "capital: a relation id such as P17 was expected",
        "line 7: P24: label stands already in line 7",
        "line 8: P24 stands already in line 7",
    ):
        assert part in str(caught.value), part
    assert str(caught.value).count("\n- ") == 11


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "lists no relations"),
        ("- P17\n", "lists no relations"),
        ("P17: [", "not YAML"),
        ("? [a]\n: b\n", "not YAML"),
        ("2020-13-45: a\n", "not YAML"),
        ("P17: !!python/name:os.system {}\n", "not YAML"),
        ("17: {label: x, domain: id, question: '{subject}?'}\n", "17: a relation id"),
        ("P017: {label: x, domain: id, question: '{subject}?'}\n", "P017: a relation id"),
        ("P17: {label: x, domain: id, question: '{subject}?'}\n" * 2, "stands already in line 1"),
    ],
)
def test_what_is_no_relation_list_is_named(text: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        relations_of(text)


def test_relations_are_ordered_by_number() -> None:
    entry = "{label: x, domain: ood, question: '{subject}?'}"
    listed = read_relations(f"P100: {entry}\nP20: {entry}\nP3: {entry}\n".encode(), "list.yaml")
    assert list(listed) == ["P3", "P20", "P100"]


def test_all_faults_of_an_alias_file_are_named_at_once() -> None:
    text = '{"A": "B", "C": ["D", ""], "E": [1], "F": ["\\ud800"], "G": ["H"], "G": ["I"]}'
    with pytest.raises(DataError) as caught:
        read_aliases(text.encode(), "aliases.json")
    for part in (
        "'A': a list of aliases was expected",
        "'C': alias '' is empty",
        "'E': alias 1 is no text",
        "'F': alias '\\ud800' is not valid Unicode",
        "'G' stands there twice",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(
    ("content", "named"), [(b"[]", "must be"), (b"{", "not JSON"), (b'{"A": ["\xff"]}', "not JSON")]
)
def test_what_is_no_alias_file_is_named(content: bytes, named: str) -> None:
    with pytest.raises(DataError, match=named):
        read_aliases(content, "aliases.json")
