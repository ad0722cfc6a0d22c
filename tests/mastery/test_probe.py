"""The prober: verdict bits, shards, restarts to the same bytes, refusals, full disks."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from probe_standins import DiceSampler

from sftknow_eval.errors import OutOfSpace, SettingsError
from sftknow_eval.mastery.dataset import Dataset, open_dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.probe import ProbeProgress, probe
from sftknow_eval.mastery.probe_settings import (
    ProbeSettings,
    differences,
    even_sample,
    select_facts,
)
from sftknow_eval.mastery.sampling import Request, request_seed
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.mastery.templates import Templates, load_templates

SETTINGS = ProbeSettings(base="a/base", fingerprint="f" * 64, n_samples=4, chunk_facts=8)


@pytest.fixture(scope="module")
def dataset(small_data: Path) -> Dataset:
    return open_dataset(small_data)


@pytest.fixture(scope="module")
def templates(dataset: Dataset) -> Templates:
    return load_templates(dataset.templates_file, dataset.relations.values())


@pytest.fixture
def run(dataset: Dataset, templates: Templates, tmp_path: Path) -> Any:
    """Return a function that probes with a stand-in and returns the table's bytes."""

    def call(sampler: Any = None, out: str = "out", settings: Any = SETTINGS, **kw: Any) -> bytes:
        sampler = sampler or DiceSampler(settings.n_samples)
        outcome = probe(dataset, templates, lambda: sampler, tmp_path / out, settings, **kw)
        assert outcome.table == tmp_path / out / "mastery.parquet"
        return outcome.table.read_bytes()

    return call


def test_every_verdict_is_the_judges_on_its_own_completion(
    dataset: Dataset, templates: Templates, tmp_path: Path, run: Any
) -> None:
    run()
    table = MasteryTable.read(tmp_path / "out")
    facts = select_facts(dataset, SETTINGS)
    # small_data: 2 ID relations x 3 splits x 5 facts, 1 OOD relation x test x 5 facts
    assert [fact.id for fact in facts] == table.rows["fact_id"].to_pylist()
    assert len(facts) == 35
    dice = DiceSampler()
    for fact, verdicts in zip(facts, table.verdicts(), strict=True):
        for template in range(3):
            seed = request_seed(0, fact.id, template)
            request = Request(0, templates.prompt(fact, template), seed)
            for sample in range(4):
                expected = contains(dice.text(request, sample), fact.aliases)
                assert verdicts[template, sample] == expected
    assert 0 < table.verdicts().mean() < 1
    assert table.meta.engine == {"backend": "hf", "engine": "dice", "versions": {"dice": "6"}}


@pytest.mark.parametrize("in_flight", [1, 40, 1000])
def test_order_of_results_and_chunks_do_not_matter(run: Any, in_flight: int) -> None:
    expected = run()
    for number, chunk_facts in enumerate((1, 8, 100)):
        settings = dataclasses.replace(SETTINGS, chunk_facts=chunk_facts)
        assert run(DiceSampler(4, in_flight), f"out{number}", settings) == expected


def test_requests_are_pulled_only_as_the_sampler_asks(run: Any) -> None:
    pulled: list[int] = []

    class Watched(DiceSampler):
        def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
            for result in super().sample(requests):
                pulled.append(len(self.seen))
                yield result

    run(Watched(4, in_flight=7))
    assert pulled[0] == 7
    assert max(ahead - given for given, ahead in enumerate(pulled)) == 7


def test_answer_stop_changes_texts_but_no_verdict(tmp_path: Path, run: Any) -> None:
    run()
    sampler = DiceSampler(4)
    run(sampler, "stopped", dataclasses.replace(SETTINGS, answer_stop=True))
    assert all(request.stops for request in sampler.seen)
    free, stopped = (MasteryTable.read(tmp_path / name) for name in ("out", "stopped"))
    np.testing.assert_array_equal(free.verdicts(), stopped.verdicts())
    assert (free.meta.answer_stop, stopped.meta.answer_stop) == (False, True)


@pytest.mark.parametrize("die_after", [0, 1, 30, 60, 104])
def test_an_interrupted_probe_goes_on_to_the_same_bytes(run: Any, die_after: int) -> None:
    expected = run(out="undisturbed")
    first = DiceSampler(4, die_after=die_after)
    with pytest.raises(KeyboardInterrupt):
        run(first)
    progress: list[ProbeProgress] = []
    second = DiceSampler(4)
    assert run(second, on_progress=progress.append) == expected
    # Only unfinished chunks are asked for again, and only they count for the rate.
    left = len(second.seen)
    assert left % 3 == 0
    assert left <= 105 - die_after // 24 * 24 + 24
    assert progress[-1].facts_done == progress[-1].facts == 35
    assert progress[-1].prompts_new == progress[-1].prompts_left == left
    assert progress[-1].facts_before == 35 - left // 3


def test_a_finished_probe_starts_no_engine_and_changes_nothing(
    dataset: Dataset, templates: Templates, tmp_path: Path, run: Any
) -> None:
    expected = run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}

    def never() -> DiceSampler:
        raise AssertionError("no engine is needed")

    outcome = probe(dataset, templates, never, tmp_path / "out", SETTINGS)
    assert outcome.facts_new == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert before == after
    # A lost table comes back from the shards, without an engine either.
    outcome.table.unlink()
    assert probe(dataset, templates, never, tmp_path / "out", SETTINGS).table.exists()
    assert outcome.table.read_bytes() == expected


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path, run: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(DiceSampler(4, die_after=50))
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    other = dataclasses.replace(
        SETTINGS, temperature=1.0, limit=9, fingerprint="0" * 64, engine_args={"dtype": "float32"}
    )
    with pytest.raises(SettingsError) as caught:
        run(settings=other)
    for line in (
        "temperature: there 0.7, now 1.0",
        "limit: there None, now 9",
        "engine_args.dtype: there (absent), now float32",
        f"fingerprint: there {'f' * 64}, now {'0' * 64}",
    ):
        assert line in str(caught.value)
    assert "seed" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


def test_another_engine_is_refused(run: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(DiceSampler(4, die_after=50))
    other = DiceSampler(4)
    other.engine = {"engine": "dice", "versions": {"dice": "7"}}
    with pytest.raises(SettingsError, match=r"versions\.dice: there 6, now 7"):
        run(other)


def test_a_folder_with_a_foreign_table_is_left_alone(tmp_path: Path, run: Any) -> None:
    run()
    (tmp_path / "out" / "probe.json").unlink()
    with pytest.raises(SettingsError, match="without a probe"):
        run()
    (tmp_path / "out" / "probe.json").write_text("{")
    with pytest.raises(SettingsError, match=r"not readable as JSON.*another folder"):
        run()


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "other settings", "other facts"])
def test_an_unusable_shard_is_computed_again(tmp_path: Path, run: Any, damage: str) -> None:
    expected = run()
    shards = tmp_path / "out" / "shards"
    shard = shards / "00001.parquet"
    whole = shard.read_bytes()
    rows = pq.read_table(shard)
    if damage == "other settings":
        pq.write_table(rows.replace_schema_metadata({b"sftknow-shard": b"0"}), shard)
    elif damage == "other facts":
        shard.write_bytes((shards / "00002.parquet").read_bytes())
    else:
        shard.write_bytes({"empty": b"", "cut": whole[:-9], "noise": b"x" * 900}[damage])
    (tmp_path / "out" / "mastery.parquet").unlink()
    (shards / ".00003.parquet.1234.partial").write_bytes(whole[:40])
    sampler = DiceSampler(4)
    assert run(sampler) == expected
    assert len(sampler.seen) == 8 * 3
    assert not list(shards.glob(".*"))


def test_completions_are_kept_with_their_verdicts(tmp_path: Path, run: Any) -> None:
    run()
    keeping = dataclasses.replace(SETTINGS, keep_completions=True)
    expected = run(out="kept", settings=keeping)
    folder = tmp_path / "kept" / "completions"
    rows = [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]
    table = MasteryTable.read(tmp_path / "kept")
    np.testing.assert_array_equal(table.verdicts(), MasteryTable.read(tmp_path / "out").verdicts())
    assert [row["verdict"] for row in rows] == table.verdicts().ravel().tolist()
    dice = DiceSampler()
    for row in random.Random(0).sample(rows, 50):
        request = Request(0, "", request_seed(0, row["fact_id"], row["template"]))
        assert row["text"] == dice.text(request, row["sample"])
    # Lost texts are completed again, and the table stays what it is.
    (folder / "00000.parquet").unlink()
    (tmp_path / "kept" / "mastery.parquet").unlink()
    assert run(out="kept", settings=keeping) == expected
    assert (folder / "00000.parquet").exists()


def test_a_full_disk_in_mid_probe_keeps_what_was_computed(tmp_path: Path, run: Any) -> None:
    expected = run(out="undisturbed")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillsTheDisk(DiceSampler):
        def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
            for number, result in enumerate(super().sample(requests)):
                if number == 50:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
                yield result

    try:
        with pytest.raises(OutOfSpace, match=r"shards.*free\s+some space"):
            run(FillsTheDisk(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").rglob("*.partial"))
    sampler = DiceSampler(4)
    assert run(sampler) == expected
    assert len(sampler.seen) < 105


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path, run: Any) -> None:
    hold = (
        "import sys, time; from pathlib import Path\n"
        "from sftknow_eval.mastery.shards import ProbeFolder\n"
        f"with ProbeFolder(Path({str(tmp_path / 'out')!r}), {{}}).locked():\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(SettingsError, match="Another probe is running"):
            run()
        other.kill()
    assert run()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, run: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file/out cannot be written.*--out"):
        run(out="file/out")


@pytest.mark.parametrize("fault", ["too few", "lost"])
def test_a_sampler_that_breaks_its_promise_is_noticed(tmp_path: Path, run: Any, fault: str) -> None:
    class Broken(DiceSampler):
        def sample(self, requests: Iterable[Request]) -> Iterator[tuple[int, list[str]]]:
            for number, (index, texts) in enumerate(super().sample(requests)):
                if fault == "too few":
                    yield index, texts[:-1]
                elif number:
                    yield index, texts

    with pytest.raises(RuntimeError, match=r"completions for 4|without all results"):
        run(Broken(4))
    assert not (tmp_path / "out" / "mastery.parquet").exists()


def test_all_faults_of_the_settings_are_listed() -> None:
    with pytest.raises(SettingsError) as caught:
        ProbeSettings(
            base="b",
            fingerprint="",
            limit=0,
            n_samples=0,
            temperature=0.0,
            splits=("train", "test2"),  # type: ignore[arg-type]
            keep_completions=True,
            answer_stop=True,
        )
    for words in ("limit is 0", "n-samples is 0", "temperature", "'test2'", "answer-stop"):
        assert words in str(caught.value)


def test_unknown_relations_name_their_nearest(dataset: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"'P119' \(nearest: .*P19"):
        select_facts(dataset, dataclasses.replace(SETTINGS, relations=("P19", "P119")))


def test_an_empty_selection_says_why(dataset: Dataset) -> None:
    settings = dataclasses.replace(SETTINGS, relations=("P106",), splits=("train",))
    with pytest.raises(SettingsError, match=r"train.*P106.*test split only"):
        select_facts(dataset, settings)


def _fact(split: str, relation: str, row: int) -> Fact:
    return Fact(f"{relation}-{split}-{row:04d}", relation, "id", split, "s", "q", "a", ("a",))  # type: ignore[arg-type]


def test_a_limit_is_spread_evenly_and_smaller_ones_are_subsets() -> None:
    sizes = {("train", "P1"): 50, ("train", "P2"): 4, ("test", "P1"): 20, ("test", "P2"): 20}
    facts = [_fact(*group, row) for group, size in sizes.items() for row in range(size)]
    previous: set[str] = set()
    for limit in (1, 3, 4, 7, 16, 30, 60, 94, 200):
        chosen = even_sample(facts, limit, seed=3)
        ids = [fact.id for fact in chosen]
        assert len(ids) == min(limit, len(facts))
        assert ids == [fact.id for fact in facts if fact.id in set(ids)], "canonical order"
        assert previous <= set(ids)
        previous = set(ids)
        counts = Counter((fact.split, fact.relation) for fact in chosen)
        open_groups = [counts[group] for group, size in sizes.items() if counts[group] < size]
        assert not open_groups or max(open_groups) - min(open_groups) <= 1
        assert all(counts[g] == sizes[g] for g in sizes if counts[g] < min(open_groups or [0]))
    other = {fact.id for fact in even_sample(facts, 30, seed=4)}
    assert other != {fact.id for fact in even_sample(facts, 30, seed=3)}


def test_the_order_of_splits_and_relations_makes_no_other_probe(run: Any) -> None:
    one = dataclasses.replace(SETTINGS, splits=("test", "dev"), relations=("P106", "P19", "P20"))
    two = dataclasses.replace(
        SETTINGS, splits=("dev", "test", "dev"), relations=("P20", "P19", "P106")
    )
    assert one == two
    assert run(settings=one) == run(settings=two)


def test_differences_name_nested_settings() -> None:
    there = {"a": 1, "b": {"c": 2, "d": 3}, "e": None}
    now = {"a": 1, "b": {"c": 5, "d": 3}, "f": 4}
    assert differences(there, now) == [
        "b.c: there 2, now 5",
        "e: there None, now (absent)",
        "f: there (absent), now 4",
    ]
    assert differences(there, json.loads(json.dumps(there))) == []


def test_counts_with_and_without_answer_stop_agree_on_the_hf_backend(
    dataset: Dataset, templates: Templates, tmp_path: Path, random_model: Path
) -> None:
    # A random model says no answer by itself: short aliases of its own bytes stand in, so that
    # some completions do stop. Same seeds, so the counts must be equal.
    from sftknow_eval.mastery.hf_sampler import HfSampler

    sampler = HfSampler(
        random_model, n_samples=4, temperature=0.7, max_tokens=12, dtype="float32", device="cpu"
    )
    letters = dataclasses.replace  # facts are frozen
    facts = [letters(fact, aliases=("e", "a", "ing")) for fact in dataset.probe_facts()]

    class Letters:
        name, relations = dataset.name, dataset.relations

        def probe_facts(self, **_: Any) -> list[Fact]:
            return facts

    tables = []
    for answer_stop in (False, True):
        settings = dataclasses.replace(SETTINGS, max_tokens=12, answer_stop=answer_stop)
        out = tmp_path / str(answer_stop)
        probe(Letters(), templates, lambda: sampler, out, settings)  # type: ignore[arg-type]
        tables.append(MasteryTable.read(out))
    free, stopped = (table.verdicts() for table in tables)
    np.testing.assert_array_equal(free, stopped)
    assert 0.02 < free.mean() < 0.98


@pytest.mark.parametrize(
    "backend",
    [
        "hf",
        pytest.param(
            "vllm",
            marks=[
                pytest.mark.vllm,
                pytest.mark.skipif(
                    "SFTKNOW_KILLS" not in os.environ, reason="the full version only: minutes"
                ),
            ],
        ),
    ],
)
def test_a_killed_probe_ends_in_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, small_data: Path, random_model: Path, backend: str
) -> None:
    # Real processes and SIGKILL. SFTKNOW_KILLS=10 is the full version.
    kills = int(os.environ.get("SFTKNOW_KILLS", "2"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SFTKNOW_CACHE": str(tmp_path / "cache")}

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sftknow_eval", "probe", str(random_model)]
        command += ["--data", str(small_data), "--out", str(tmp_path / out), "--backend", backend]
        command += ["--dtype", "float32", "--chunk-facts", "1"]
        if backend == "hf":
            command += ["--device", "cpu"]
        else:
            # So many samples that vLLM does not hold all prompts at once: shards come one by one.
            command += ["--max-model-len", "128", "--n-samples", "100"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    shards = tmp_path / "killed" / "shards"
    draw = random.Random(2)
    undisturbed = start("undisturbed")
    for number in range(kills):
        before = len(list(shards.glob("*.parquet")))
        process = start("killed")
        if number % 5 == 4:  # some die while the engine starts
            time.sleep(draw.random() * 4)
        while number % 5 != 4 and len(list(shards.glob("*.parquet"))) <= before:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last = start("killed")
    assert (last.wait(), undisturbed.wait()) == (0, 0)
    expected = (tmp_path / "undisturbed" / "mastery.parquet").read_bytes()
    assert (tmp_path / "killed" / "mastery.parquet").read_bytes() == expected
