"""Templates: the shipped 504 lines keep their rules, and a user's file is read or refused whole.

Expected values: the rules are those of docs/templates.md; the digest is recomputed here from
its definition; the limits of likeness are the project's own, stated at `likeness_faults`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import yaml

from sftknow_eval.errors import TemplateError
from sftknow_eval.mastery.facts import Fact, Relation
from sftknow_eval.mastery.templates import SUBJECT, Templates, load_templates

PACKAGED = files("sftknow_eval") / "data" / "entity_questions"
MAX_SHARED_WORDS = 0.5  # of all words of two templates, the share that stands in both
MAX_EDIT_LIKENESS = 0.6  # 1 - words to change / words of the longer one
STOP_WORDS = frozenset(
    word
    for line in (
        "a an the of in on at to by for from with as and or",
        "is was are were be been being has have had do does did would can could",
        "it its that this which who whom whose what where when how one most",
    )
    for word in line.split()
)


def relation(name: str, label: str = "a label") -> Relation:
    return Relation(name, label, "id", f"What about {SUBJECT}?")


def fact(name: str, subject: str) -> Fact:
    return Fact(f"{name}-test-0000", name, "id", "test", subject, "?", "Paris", ("Paris",))


BIRTH, DEATH = relation("P19", "place of birth"), relation("P20", "place of death")


def written(folder: Path, text: str) -> Path:
    path = folder / "templates.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str, *relations: Relation, known: list[str] | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        load_templates(written(folder, text), relations or (BIRTH,), known=known)
    return str(caught.value)


@pytest.fixture(scope="module")
def shipped() -> Templates:
    listed = yaml.safe_load((PACKAGED / "relations.yaml").read_text(encoding="utf-8"))
    relations = [relation(name, entry["label"]) for name, entry in listed.items()]
    return load_templates(PACKAGED / "templates.yaml", relations, known=listed)


# --- The shipped lines ------------------------------------------------------------------------


def words(template: str) -> list[str]:
    return re.findall(r"\{subject\}|[\w'-]+", template.lower())


def edits(first: list[str], second: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        above, row = row, [i]
        for j, right in enumerate(second, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def likeness_faults(templates: tuple[str, ...]) -> list[str]:
    """Return the pairs that differ too little: in an opening or an ending, or in few words."""
    found = []
    for first, second in combinations(templates, 2):
        left, right = words(first), words(second)
        kept = [[w for w in ws if w not in STOP_WORDS and w != SUBJECT] for ws in (left, right)]
        sets = [set(left) - {SUBJECT}, set(right) - {SUBJECT}]
        shared = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        likeness = 1 - edits(left, right) / max(len(left), len(right))
        inside = f" {' '.join(left)} " in f" {' '.join(right)} " or (
            f" {' '.join(right)} " in f" {' '.join(left)} "
        )
        if kept[0] == kept[1]:
            found.append(f"the same content words: {first} | {second}")
        if inside:
            found.append(f"one holds the other: {first} | {second}")
        if shared > MAX_SHARED_WORDS or likeness > MAX_EDIT_LIKENESS:
            found.append(f"{shared:.2f} {likeness:.2f}: {first} | {second}")
    return found


def test_shipped_templates_are_21_for_each_of_the_24_relations(shipped: Templates) -> None:
    assert len(shipped.completions) == 24
    assert shipped.count == 21
    assert {len(templates) for templates in shipped.completions.values()} == {21}


def test_shipped_templates_of_a_relation_differ_in_wording(shipped: Templates) -> None:
    faults = {name: likeness_faults(lines) for name, lines in shipped.completions.items()}
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The birthplace of {subject} is", "As we know, the birthplace of {subject} is"),
        ("The birthplace of {subject} is", "The birthplace that {subject} has is"),
        ("The birthplace of {subject} is", "The hometown of {subject} is"),
        ("{subject} was born in the city of", "It is known that {subject} was born in the city of"),
    ],
)
def test_the_measure_of_likeness_finds_variants_of_an_opening(first: str, second: str) -> None:
    assert likeness_faults((first, second))


def test_shipped_templates_vary_in_length_opening_and_ending(shipped: Templates) -> None:
    for name, templates in shipped.completions.items():
        split = [words(template) for template in templates]
        lengths = sorted(map(len, split))
        assert lengths[0] <= 6, name
        assert lengths[-1] >= 10, name
        assert len({tuple(ws[:2]) for ws in split}) >= 17, name
        assert len({tuple(ws[-2:]) for ws in split}) >= 15, name
        assert any(ws[0] == SUBJECT for ws in split), name


def test_no_shipped_template_serves_two_relations(shipped: Templates) -> None:
    every = sorted(line for lines in shipped.completions.values() for line in lines)
    assert not [first for first, second in pairwise(every) if first == second]


def test_shipped_templates_end_in_a_word_and_read_as_one_phrase(shipped: Templates) -> None:
    for lines in shipped.completions.values():
        for line in lines:
            assert re.search(r"[a-z-]$", line), line
            assert line.startswith(SUBJECT) or line[0].isupper(), line
            assert "  " not in line
            assert not re.search(r"\b(\w+) \1\b", line), line
            assert not re.search(r"[^\x20-\x7e]", line), line


def test_shipped_templates_suit_the_objects_that_follow(shipped: Templates) -> None:
    """Articles: bare nouns and 'United States of America' follow. Dates: places must follow."""
    bare_names = ("P17", "P495")
    for name, lines in shipped.completions.items():
        for line in lines:
            last = words(line)[-1]
            assert last not in ("a", "an"), line
            needs_article = last in ("in", "of", "from", "by", "to") and "the name of" not in line
            assert not (name in bare_names and needs_article), line
            dated = r"\b(born|died|founded|formed|started|began|established|married|written) in$"
            assert not re.search(dated, line), line


def test_shipped_templates_are_read_in_under_50_ms(shipped: Templates) -> None:
    relations = [relation(name) for name in shipped.completions]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        load_templates(PACKAGED / "templates.yaml", relations)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


# --- Filling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["Ada", "{subject}", "{0} 100% %s", r"C:\1 \g<0> $x", "a{b"])
def test_subjects_are_put_in_literally(tmp_path: Path, subject: str) -> None:
    path = written(tmp_path, 'P19: ["{subject} was born in 100% of", "The home of {subject} is"]')
    templates = load_templates(path, [BIRTH])
    assert templates.prompt(fact("P19", subject), 0) == subject + " was born in 100% of"
    assert templates.prompt(fact("P19", subject), 1) == "The home of " + subject + " is"


def test_a_fact_of_another_relation_is_refused(tmp_path: Path) -> None:
    templates = load_templates(written(tmp_path, 'P19: ["{subject} is from"]'), [BIRTH])
    with pytest.raises(TemplateError, match=r"P20-test-0000.*P19.*Add templates for P20"):
        templates.prompt(fact("P20", "Ada"), 0)


# --- A user's own file ------------------------------------------------------------------------

TWO = (
    'P20: ["{subject} died in", "{subject} passed away in"]\n'
    'P19: ["{subject} is from", "x {subject}"]\n'
)


def test_relations_come_as_asked_for_and_templates_in_the_files_order(tmp_path: Path) -> None:
    both = load_templates(written(tmp_path, TWO), [BIRTH, DEATH])
    assert both.completions == {
        "P19": ("{subject} is from", "x {subject}"),
        "P20": ("{subject} died in", "{subject} passed away in"),
    }
    assert both.count == 2


def test_a_file_may_hold_more_than_is_asked_for(tmp_path: Path) -> None:
    uneven = TWO + 'P36: ["The capital of {subject} is"]\n'
    one = load_templates(written(tmp_path, uneven), [DEATH], known=["P19", "P20", "P36"])
    assert list(one.completions) == ["P20"]


def test_the_digest_is_of_the_content_in_canonical_order(tmp_path: Path) -> None:
    content = {
        "P19": ["{subject} is from", "x {subject}"],
        "P20": ["{subject} died in", "{subject} passed away in"],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    expected = hashlib.sha256(canonical).hexdigest()
    layout = yaml.safe_dump(content, default_style="'") + "# a comment\n"
    assert load_templates(written(tmp_path, TWO), [BIRTH, DEATH]).digest == expected
    assert load_templates(written(tmp_path, layout), [BIRTH, DEATH]).digest == expected
    assert load_templates(written(tmp_path, TWO), [DEATH]).digest == expected
    for changed in (TWO.replace("x {", "y {"), TWO.replace("P20", "P36")):
        assert load_templates(written(tmp_path, changed), [BIRTH]).digest != expected
    swapped = 'P20: ["{subject} passed away in", "{subject} died in"]\n' + TWO.splitlines()[1]
    assert load_templates(written(tmp_path, swapped), [BIRTH]).digest != expected


def test_all_faults_are_listed_at_once_with_their_lines(tmp_path: Path) -> None:
    message = faults_of(
        tmp_path,
        "P19:\n"
        "- 'The birthplace is'\n"
        "- '{subject} and {subject} are from'\n"
        "- '{subject} is from {object}'\n"
        "- '{subject} is from '\n"
        "- '{subject} is from there.'\n"
        "- ''\n"
        "- 1912\n"
        "- ok {subject}\n"
        "- ok {subject}\n"
        "P19: ['{subject} again']\n"
        "P189: ['{subject} once']\n"
        "P20: {core: '{subject} died in'}\n"
        "P36: []\n"
        "P17: ['{subject} is in']\n"
        "? [P40]\n: ['{subject}']\n",
        *(BIRTH, DEATH, relation("P17"), relation("P26", "spouse")),
        known=["P17", "P19", "P20", "P26", "P36", "P180"],
    )
    for expected in (
        r"templates\.yaml cannot be used as templates \(15 faults\)",
        r"line 2, P19, template 1: 'The birthplace is' does not name \{subject\}",
        r"line 3, P19, template 2: .* names \{subject\} 2 times; once was expected",
        r"line 4, P19, template 3: .* holds \{object\}; \{subject\} is the only placeholder",
        r"line 5, P19, template 4: .* begins or ends with white space",
        r"line 6, P19, template 5: .* ends a sentence",
        r"line 7, P19, template 6: empty",
        r"line 8, P19, template 7: not a text; put it in double quotes",
        r"line 10, P19, template 9: 'ok \{subject\}' stands already in line 9",
        r"line 11: P19 stands here a second time",
        r"line 12: P189 is no relation of the data; near it are P19, P180",
        r"line 13: P20 needs a list of templates",
        r"line 14: P36 needs a list of templates",
        r"line 16: a relation id such as P19 was expected",
        r"no templates for P26 \(spouse\); .*ask only for the relations there are: P19,P17",
        r"same number of templates, and there are 9 for P19; 1 for P17",
    ):
        assert re.search(expected, message), expected
    assert message.count("\n- ") == 15


@pytest.mark.parametrize("stray", ["{}", "{0}", "{Subject}", "{", "}", "{{subject}}"])
def test_other_placeholders_and_stray_braces_are_faults(tmp_path: Path, stray: str) -> None:
    text = yaml.safe_dump({"P19": [f"{SUBJECT} {stray} is from"]})
    assert "only placeholder" in faults_of(tmp_path, text)


@pytest.mark.parametrize("end", [".", "!", "?", "…", "。"])
def test_a_template_that_ends_its_sentence_is_a_fault(tmp_path: Path, end: str) -> None:
    text = yaml.safe_dump({"P19": [f"{SUBJECT} is from{end}"]}, allow_unicode=True)
    assert "ends a sentence" in faults_of(tmp_path, text)


def test_an_unknown_relation_names_the_nearest_ids(tmp_path: Path) -> None:
    text = 'p19: ["{subject} is from"]'
    message = faults_of(tmp_path, text, known=["P17", "P19", "P413"])
    assert re.search("p19 is no relation of the data; near it are P19", message)
    assert re.search(r"no templates for P19 \(place of birth\); add them$", message)
    far = faults_of(tmp_path, 'spouse: ["{subject} wed"]', known=["P19", "P20"])
    assert "spouse is no relation of the data, which has P19, P20" in far


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "holds nothing; a list of templates under each relation id was expected"),
        ("- a\n- b\n", "holds no mapping"),
        ("P19: [unclosed", "not readable as YAML"),
        ("a: 1\n---\nb: 2\n", "not readable as YAML"),
        ("P19: &loop [*loop]", "not a text"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    assert re.search(expected, faults_of(tmp_path, content))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"absent\.yaml cannot be read: No such file"):
        load_templates(tmp_path / "absent.yaml", [BIRTH])
    (tmp_path / "bytes.yaml").write_bytes(b"P19: ['\xff\xfe {subject}']")
    with pytest.raises(TemplateError, match="not readable as YAML"):
        load_templates(tmp_path / "bytes.yaml", [BIRTH])


def test_asking_for_no_relation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="No relation was asked for"):
        load_templates(written(tmp_path, TWO), [])


@pytest.mark.parametrize("brk", ["\n", "\r\n", "\u2028"])
def test_a_template_of_two_lines_is_a_fault(tmp_path: Path, brk: str) -> None:
    text = yaml.safe_dump({"P19": [f"{SUBJECT}{brk}is from"]}, allow_unicode=False)
    assert "holds a line break" in faults_of(tmp_path, text)
