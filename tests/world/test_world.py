"""The mini-world: whole or absent, repeatable, and read back by the ordinary loaders."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow_eval.cli.app import main
from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.hf_sampler import HfSampler
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.sampling import Request, request_seed
from sftknow_eval.mastery.table import stratum
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.world.build import build_world
from sftknow_eval.world.facts import make_facts
from sftknow_eval.world.names import Names
from sftknow_eval.world.patterns import OPENINGS, PATTERNS
from sftknow_eval.world.settings import WorldSettings, world_settings
from sftknow_eval.world.text import make_text

# A world that is built in a second: its model learns next to nothing.
SMALL = dataclasses.replace(
    world_settings("tiny"), id_facts=(3, 2, 2), ood_facts=(1, 1, 2), exposures=(2, 4)
)
ID = ["P17", "P19", "P20", "P36", "P69", "P131", "P159", "P276", "P495", "P740"]
OOD = [
    *("P26", "P40", "P50", "P106", "P112", "P127", "P136"),
    *("P170", "P175", "P176", "P264", "P407", "P413", "P800"),
]


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("worlds") / "small", SMALL)[0]


def test_the_relations_are_those_of_entity_questions() -> None:
    """Source: protocol, "Facts": 10 ID and 14 OOD relations."""
    assert [r for r, pattern in PATTERNS.items() if pattern.domain == "id"] == ID
    assert [r for r, pattern in PATTERNS.items() if pattern.domain == "ood"] == OOD


def test_patterns_name_the_subject_once_and_cores_differ() -> None:
    for pattern in PATTERNS.values():
        for phrase in (pattern.question, *pattern.cores):
            assert phrase.count("{subject}") == 1
        assert len(set(pattern.cores)) == 4
    assert len(set(OPENINGS)) == 11


@pytest.mark.parametrize("seed", [0, 1])
def test_no_name_of_an_object_is_part_of_another(seed: int) -> None:
    names = Names(seed, alias_share=0.1)
    objects = [name for pool in names.objects.values() for name in pool] + [*names.aliases.values()]
    assert not [(a, b) for a, b in itertools.permutations(objects, 2) if a in b]


def test_the_text_states_facts_as_often_as_the_settings_say() -> None:
    """15% never; 2 to 48 times else, on average (48 - 2) / ln(48 / 2) = 14.5 times."""
    settings = world_settings("demo")
    names = Names(settings.seed, settings.alias_share)
    facts = make_facts(settings, names)
    statements = make_text(settings, facts, names.aliases)
    subjects = {fact.subject: fact for fact in facts}
    assert len(subjects) == len(facts)
    stated = Counter(
        next(s for s in _pairs(statement.prompt) if s in subjects) for statement in statements
    )
    unseen = 1 - len(stated) / len(facts)
    assert unseen == pytest.approx(0.15, abs=0.02)
    assert (min(stated.values()), max(stated.values())) == (2, 48)
    assert np.mean(list(stated.values())) == pytest.approx(46 / math.log(24), rel=0.05)
    asked = [statement.prompt.startswith("question ") for statement in statements]
    assert np.mean(asked) == pytest.approx(0.15, abs=0.01)


def _pairs(prompt: str) -> list[str]:
    words = prompt.replace("?", " ").replace(",", " ").split()
    return [f"{a} {b}" for a, b in itertools.pairwise(words)]


def test_equal_settings_give_equal_bytes_and_another_seed_another_world(
    small_world: Path, tmp_path: Path
) -> None:
    again, reused = build_world(tmp_path / "again", SMALL)
    assert not reused
    assert contents(again) == contents(small_world)
    other, _ = build_world(tmp_path / "other", dataclasses.replace(SMALL, seed=1))
    differing = {k for k, v in contents(other).items() if v != contents(small_world)[k]}
    assert "base/model.safetensors" in differing
    assert "dataset/train/P17.train.json" in differing


def test_it_leaves_the_random_state_and_the_threads_as_they_were(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_world(tmp_path / "world", SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_the_loaders_read_every_fact_and_template(small_world: Path) -> None:
    data = open_dataset(small_world)
    expected = {"train": 4 * 3 + 2 * 1, "dev": 4 * 2 + 2 * 1, "test": 4 * 2 + 2 * 2}
    assert {split: len(data.facts(split)) for split in expected} == expected
    assert all(count.dropped == {} for count in data.counts() if count.read)
    templates = load_templates(data.templates_file, data.relations.values())
    assert templates.count == 21
    for fact in data.probe_facts():
        assert templates.prompt(fact, 0).count(fact.subject) == 1
        assert fact.question == data.relations[fact.relation].question.format(subject=fact.subject)


def test_some_objects_have_aliases_that_the_judge_accepts(tiny_world: Path) -> None:
    facts = open_dataset(tiny_world).probe_facts()
    assert any(len(fact.aliases) == 2 for fact in facts)
    assert any(len(fact.aliases) == 1 for fact in facts)


def test_markers_are_ordinary_tokens_that_start_from_their_words(tiny_world: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_world / "base")
    model = AutoModelForCausalLM.from_pretrained(tiny_world / "base")
    ids = tokenizer("<|question|> Who? <|answer|>")["input_ids"]
    question, answer = tokenizer.convert_tokens_to_ids(["<|question|>", "<|answer|>"])
    assert (ids[0], ids[1], ids[-1]) == (tokenizer.bos_token_id, question, answer)
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert shown == "<|question|> Who? <|answer|>"
    for marker, word in ((question, "question"), (answer, "\u0120answer")):
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            source = tokenizer.convert_tokens_to_ids(word)
            assert source != tokenizer.unk_token_id
            assert torch.equal(weight[marker], weight[source])
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_tiny_base_has_facts_it_knows_not_partly_and_well(tiny_world: Path) -> None:
    data = open_dataset(tiny_world)
    templates = load_templates(data.templates_file, data.relations.values())
    facts = data.probe_facts(splits=("test",))
    sampler = HfSampler(tiny_world / "base", n_samples=10, temperature=0.7, max_tokens=32)
    asked = (
        Request(i * 21 + t, templates.prompt(fact, t), request_seed(0, fact.id, t))
        for i, fact in enumerate(facts)
        for t in range(21)
    )
    right = Counter[int]()
    for index, texts in sampler.sample(asked):
        right[index // 21] += sum(contains(text, facts[index // 21].aliases) for text in texts)
    strata = Counter(stratum(right[i], 210) for i in range(len(facts)))
    assert strata[0] >= 10
    assert strata[1] + strata[2] + strata[3] >= 10
    assert strata[4] >= 5


def test_the_record_holds_settings_versions_and_the_measured_loss(tiny_world: Path) -> None:
    record = json.loads((tiny_world / "world.json").read_text())
    assert record["settings"] == world_settings("tiny").record()
    assert {"torch", "transformers", "tokenizers"} <= record["versions"].keys()
    losses = [point["loss"] for point in record["pretraining_loss"]]
    assert losses[-1] < losses[0] / 2


class TestFolder:
    """What is there already is kept."""

    def test_a_build_that_is_cut_off_leaves_nothing(self, tmp_path: Path) -> None:
        def cut(what: str, done: int, total: int) -> None:
            if what == "pre-training":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_world(tmp_path / "world", SMALL, cut)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_said_so_and_leaves_nothing(self, tmp_path: Path) -> None:
        # What the world writes is larger than the files that this process may write.
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "import sftknow_eval.world.build as build, test_world\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "build.build_world(Path(sys.argv[1]), test_world.SMALL)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "world")],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        assert "OutOfSpace: No space left while writing" in ended.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_finished_world_is_reused_untouched(self, small_world: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in small_world.rglob("*")}
        assert build_world(small_world, SMALL) == (small_world, True)
        assert {path: path.stat().st_mtime_ns for path in small_world.rglob("*")} == before

    def test_another_world_is_refused_by_its_differences(self, small_world: Path) -> None:
        wanted = dataclasses.replace(SMALL, seed=9)
        with pytest.raises(SettingsError, match=r"seed 0 \(asked: 9\)"):
            build_world(small_world, wanted)

    def test_a_folder_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(SettingsError, match="not a mini-world"):
            build_world(tmp_path, SMALL)
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_a_file_in_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "world").write_text("")
        with pytest.raises(SettingsError, match="not a mini-world"):
            build_world(tmp_path / "world", SMALL)


def test_the_command_reuses_a_world_and_refuses_another_seed(
    tiny_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["sftknow", "world", "--size", "tiny", "--out", str(tiny_world)]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "nothing to do" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*call, "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["settings"]["size"] == "tiny"
    monkeypatch.setattr(sys, "argv", [*call, "--seed", "7"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "other settings" in capsys.readouterr().err


def test_both_sizes_have_enough_facts_in_every_split() -> None:
    demo: WorldSettings = world_settings("demo")
    assert (demo.id_relations, demo.ood_relations) == (len(ID), len(OOD))
    assert min(*demo.id_facts, *demo.ood_facts) > 0
    assert min(*world_settings("tiny").id_facts, *world_settings("tiny").ood_facts) > 0
