"""Documents from facts and a mastery table: which leaf, which prompt, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftknow_eval.errors import DataError, MasteryError, SettingsError
from sftknow_eval.evaluation.documents import TaskData, load_task_data
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.mastery.dataset import open_dataset

# 3 templates x 4 samples: 12 samples a fact. Stratum i holds ((i-1)/4, i/4] of them.
COUNTS = {
    "P19-test-0000": 0,
    "P19-test-0001": 1,
    "P19-test-0002": 3,
    "P19-test-0003": 4,
    "P19-test-0004": 12,
    "P20-test-0000": 9,
    "P106-test-0000": 12,
    "P106-test-0001": 12,
}


@pytest.fixture(scope="module")
def table(small_data: Path, make_table) -> Path:
    return make_table(small_data, COUNTS)


@pytest.fixture
def load(small_data: Path, table: Path):
    def load(**metadata: object) -> TaskData:
        named = {"data": str(small_data), "mastery": str(table), **metadata}
        return load_task_data(read_settings(named))

    return load


def ids(data: TaskData, domain: str, stratum: int) -> set[str]:
    return {document["id"] for document in data.leaf(domain, stratum)}


def test_facts_fall_in_the_leaf_of_their_domain_and_stratum(load) -> None:
    data = load()
    assert ids(data, "id", 0) == {"P19-test-0000"}
    assert ids(data, "id", 1) == {"P19-test-0001", "P19-test-0002"}
    assert ids(data, "id", 2) == {"P19-test-0003"}
    assert ids(data, "id", 3) == {"P20-test-0000"}
    assert ids(data, "id", 4) == {"P19-test-0004"}
    assert ids(data, "ood", 4) == {"P106-test-0000", "P106-test-0001"}


def test_an_empty_stratum_holds_one_sentinel_with_the_same_fields(load) -> None:
    data = load()
    (sentinel,) = data.leaf("ood", 0)
    assert sentinel["id"] == ""
    assert sentinel["prompt"]
    assert sentinel.keys() == data.leaf("id", 0)[0].keys()
    assert data.leaf("ood", 0).features == data.leaf("id", 0).features


def test_a_document_holds_all_that_judging_it_again_needs(load, small_data: Path) -> None:
    document = load(style="paper").leaf("id", 1)[0]
    fact = {fact.id: fact for fact in open_dataset(small_data).facts("test")}
    known = fact[document["id"]]
    assert document["aliases"] == list(known.aliases)
    assert (document["relation"], document["stratum"]) == ("P19", 1)
    assert document["prompt"] == f"<|question|> {known.question} <|answer|>"
    assert document["target"] == known.answer
    assert json.loads(json.dumps(document)) == document


def test_what_was_not_probed_is_left_out_and_counted(load) -> None:
    record = load().record
    # 15 facts are kept of the 17 rows (conftest); 8 of them are in the table.
    assert (record["facts"], record["facts_not_probed"]) == (8, 7)


def test_completion_uses_the_best_template_of_the_other_half(load, small_data: Path) -> None:
    # In this table the first samples are the correct ones, so the lowest template is the best
    # on whatever half it is chosen.
    data = load(style="completion")
    (document,) = data.leaf("id", 4)
    assert document["prompt"] == "Kurt Gödel was born in"
    assert (document["template"], document["template_choice"]) == (0, "cross-fit")
    assert data.record["best_templates"].keys() <= {"cross-fit", "first"}


def test_completion_with_other_templates_is_refused(load, small_data: Path, tmp_path: Path) -> None:
    other = tmp_path / "templates.yaml"
    text = (small_data / "templates.yaml").read_text()
    other.write_text(text.replace("was born in", "saw the light of day in"))
    with pytest.raises(MasteryError, match=r"not those that the mastery table .* probed with"):
        load(style="completion", templates=str(other))


def test_a_file_of_ids_selects_facts_of_any_split(load, tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("# two facts\nP19-test-0003\n\nP20-test-0000  # died in Erlangen\n")
    data = load(facts=str(listed))
    assert data.record["facts"] == 2
    assert data.record["split"] == "listed"
    listed.write_text('["P19-test-0003"]')
    assert load(facts=str(listed)).record["facts"] == 1


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("P19-test-0003\nP19-test-0099\n", SettingsError, r"1 of 2 ids are no fact.*P19-test-0099"),
        ("P20-test-0001\n", MasteryError, r"none of the facts asked for"),
        ("P19-test-0000\nP20-test-0001\n", MasteryError, r"1 of the 2 facts.*P20-test-0001"),
        ("# nothing\n", DataError, r"holds no fact ids"),
        ("[1, 2", DataError, r"begins like a JSON list but is none"),
    ],
)
def test_ids_that_cannot_be_asked_are_named(
    load, tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text(content)
    with pytest.raises(error, match=message):
        load(facts=str(listed))


def test_relations_restrict_the_facts(load) -> None:
    assert load(relations="P20").record["facts"] == 1
    with pytest.raises(SettingsError, match=r"Unknown relation P99; .* has P19, P20, P106"):
        load(relations="P99")


def test_a_table_of_other_facts_is_refused(load, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").symlink_to(small_data / "dataset")
    for name in ("relations.yaml", "templates.yaml"):
        (tmp_path / name).symlink_to(small_data / name)
    (tmp_path / "aliases.json").write_text('{"London": ["Londinium"]}')
    with pytest.raises(MasteryError, match=r"belongs to other facts.*sftknow probe"):
        load(data=str(tmp_path))


def test_without_a_table_the_error_names_the_command() -> None:
    with pytest.raises(MasteryError, match=r"sftknow probe"):
        load_task_data(read_settings({"pretrained": "nobody/knows-this"}))


def test_a_table_of_another_base_than_the_recorded_one_is_refused(
    tuned: Path, tiny_world: Path, make_table
) -> None:
    counts = {fact.id: 1 for fact in open_dataset(tiny_world).facts("test")}
    other = make_table(tiny_world, counts, base="another")
    with pytest.raises(MasteryError, match=r"belongs to 'another'"):
        load_task_data(read_settings({"pretrained": str(tuned), "mastery": str(other)}))


def test_a_fine_tune_with_a_record_finds_everything_by_itself(
    tuned: Path, tiny_mastery: Path
) -> None:
    from sftknow_eval.mastery.find import register

    register(tiny_mastery)
    record = load_task_data(read_settings({"pretrained": str(tuned)})).record
    assert (record["style"], record["facts"]) == ("paper", 120)


def test_shots_are_the_same_for_a_seed_and_about_no_tested_subject(
    tiny_world: Path, tiny_mastery: Path
) -> None:
    named = {"data": str(tiny_world), "mastery": str(tiny_mastery), "style": "plain"}
    pool = load_task_data(read_settings(named)).shots
    shots = pool.draw(5, 1234)
    assert shots == pool.draw(5, 1234)
    assert shots != pool.draw(5, 1)
    assert {shot["domain"] for shot in shots} == {"id"}
    assert {shot["split"] for shot in shots} == {"train"}
    subjects = {fact.subject for fact in open_dataset(tiny_world).facts("test")}
    train = {fact.id: fact for fact in open_dataset(tiny_world).facts("train")}
    everything = pool.draw(100, 0)
    assert not {train[shot["id"]].subject for shot in everything} & subjects


def test_when_all_train_facts_are_tested_there_are_no_shots(
    tiny_world: Path, tiny_mastery: Path
) -> None:
    named = {"data": str(tiny_world), "mastery": str(tiny_mastery), "split": "train"}
    pool = load_task_data(read_settings(named)).shots
    assert pool.draw(0, 1) == []
    with pytest.raises(SettingsError, match=r"1 shots are asked for, but only 0"):
        pool.draw(1, 1)


def test_equal_settings_are_read_once(load) -> None:
    assert load() is load()


def test_all_test_facts_of_entity_questions_find_their_leaf(real_archive: Path, make_table) -> None:
    facts = open_dataset(real_archive).probe_facts(splits=("test",))
    table = make_table(real_archive, {fact.id: i % 85 for i, fact in enumerate(facts)})
    named = {"data": str(real_archive), "mastery": str(table), "style": "completion"}
    data = load_task_data(read_settings(named))
    sizes = {leaf: len(documents) for leaf, documents in data.leaves.items()}
    # Table 1: 9,555 ID and 11,613 OOD test facts. Of 84 samples, 0 is stratum 0, 1-21 are 1, ...
    assert sum(n for (domain, _), n in sizes.items() if domain == "id") == 9555
    assert sum(n for (domain, _), n in sizes.items() if domain == "ood") == 11613
    assert min(sizes.values()) > 0
