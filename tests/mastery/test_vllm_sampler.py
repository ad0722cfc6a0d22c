"""One real vLLM engine on the CPU for most of these tests; float32, random weights."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sftknow_eval.errors import MissingDependency, ModelError, SettingsError
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.matching import contains
from sftknow_eval.mastery.sampling import SEED_STRIDE, Request, request_seed
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.mastery.vllm_engine import _logged_cause, check_arguments, cpu_defaults
from sftknow_eval.mastery.vllm_sampler import VllmSampler

SAMPLING = {"n_samples": 10, "temperature": 0.7, "max_tokens": 12}
# Longer than a block of the cache, so that its reuse is exercised.
PREAMBLE = "Ada Lovelace and Alan Turing and Grace Hopper and Emmy Noether and Kurt Gödel " * 2

pytestmark = [
    pytest.mark.vllm,
]


# A process holds one engine at a time: the tests with an engine of their own come first, those
# that share this one last.
@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Iterator[VllmSampler]:
    made = VllmSampler(str(random_model), **SAMPLING)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "sampler" in request.fixturenames:
        made = request.getfixturevalue("sampler")
        made.n_samples, made.in_flight = 10, 103


def some_requests(count: int = 40) -> list[Request]:
    people = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether", "Kurt Gödel"]
    texts = ["{} was born in", PREAMBLE + "and {} died in", "{}: at"]
    prompts = [text.format(person) for person in people for text in texts]
    return [
        Request(7 * i, prompt, SEED_STRIDE * (i + 1))
        for i, prompt in zip(range(count), itertools.cycle(prompts), strict=False)
    ]


def test_answer_stop_on_the_mini_world(tiny_world: Path) -> None:
    """A base that knows answers."""
    data = open_dataset(tiny_world)
    templates = load_templates(data.templates_file, data.relations.values())
    facts = data.probe_facts()[::24]
    requests = [
        Request(21 * i + t, templates.prompt(f, t), request_seed(0, f.id, t))
        for i, f in enumerate(facts)
        for t in range(templates.count)
    ]
    stopping = [dataclasses.replace(r, stops=facts[r.index // 21].aliases) for r in requests]
    world = VllmSampler(str(tiny_world / "base"), n_samples=10, temperature=0.7, max_tokens=32)
    try:
        whole, stopped = dict(world.sample(requests)), dict(world.sample(stopping))
    finally:
        world.close()
    counts = [
        [sum(contains(t, facts[r.index // 21].aliases) for t in texts[r.index]) for r in requests]
        for texts in (whole, stopped)
    ]
    assert counts[0] == counts[1]
    assert 0.05 < sum(counts[0]) / len(requests) / 10 < 0.95


def test_a_model_without_tokenizer(random_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_model, tmp_path / "mute")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"mute.*tokenizer.*Save the tokenizer beside"):
        VllmSampler(str(folder), **SAMPLING)


def test_not_enough_memory(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    with pytest.raises(ModelError, match=r"memory.*Lower gpu_memory_utilization"):
        VllmSampler(str(random_model), **SAMPLING, kv_cache_memory_bytes=1 << 50)


def test_an_unknown_model() -> None:
    with pytest.raises(ModelError, match=r"/no/such/model does not exist"):
        VllmSampler("/no/such/model", **SAMPLING)


def test_values_that_vllm_refuses(random_model: Path) -> None:
    with pytest.raises(ModelError, match=r"dtype.*'float32'"):
        VllmSampler(str(random_model), **SAMPLING, dtype="flat32")
    with pytest.raises(ModelError, match=r"max_model_len \(4096\) is greater"):
        VllmSampler(str(random_model), **SAMPLING, max_model_len=4096)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="above 0, found 0"):
        VllmSampler("model", n_samples=1, temperature=0, max_tokens=1)
    with pytest.raises(SettingsError, match="at least 1, found 0, 1 and None"):
        VllmSampler("model", n_samples=0, temperature=1, max_tokens=1)


def test_unknown_arguments_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match=r"(?s)gpu_mem.*gpu_memory_util.*tensor_parallel'.*_size"
    ):
        check_arguments({"gpu_mem_utilization": 0.5, "tensor_parallel": 2, "seed": 1})
    with pytest.raises(SettingsError, match="Ray"):
        check_arguments({"data_parallel_size": 2})


def test_defaults_on_the_cpu_leave_the_users_choices(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    defaults = cpu_defaults(random_model, {}, 32)
    assert defaults["enforce_eager"] is True
    assert defaults["block_size"] % 32 == 0
    assert defaults["max_model_len"] == 512
    assert defaults["kv_cache_memory_bytes"] > 0
    chosen = {"enforce_eager": False, "max_model_len": 64, "gpu_memory_utilization": 0.5}
    kept = cpu_defaults(random_model, chosen, 32)
    assert not kept.keys() & {*chosen, "kv_cache_memory_bytes"}
    # No prompt is ever split: a batch holds as many tokens as all its sequences can have.
    assert kept["max_num_batched_tokens"] == 64 * defaults["max_num_seqs"]
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in cpu_defaults(random_model, {}, 32)


def test_vllm_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match=r'pip install "sftknow-eval\[vllm\]"'):
        VllmSampler("model", **SAMPLING)


def test_the_cause_of_a_failed_start_is_found_in_the_log(tmp_path: Path) -> None:
    """Lines as vLLM 0.32's worker, then its engine process, log a start that failed."""
    log = tmp_path / "errors.log"
    log.write_text(
        "ERROR WorkerProc failed to start.\nTraceback (most recent call last):\n"
        '  File "worker.py", line 60, in __init__\n'
        "ValueError: Free memory on device is less than desired GPU memory utilization\n"
        "ERROR EngineCore failed to start.\nTraceback (most recent call last):\n"
        "Exception: WorkerProc initialization failed due to an exception\n"
    )
    cause = _logged_cause(log)
    assert cause == "ValueError: Free memory on device is less than desired GPU memory utilization"
    log.write_text("ERROR nothing of the kind\n")
    assert _logged_cause(log) is None


def test_every_request_comes_back_with_all_its_samples(sampler: VllmSampler) -> None:
    requests = some_requests()
    results = list(sampler.sample(requests))
    assert sorted(index for index, _ in results) == [request.index for request in requests]
    assert {len(texts) for _, texts in results} == {10}
    texts = [text for _, group in results for text in group]
    assert len(set(texts)) > 300
    assert not any("</s>" in text or "<s>" in text for text in texts)


def test_a_sample_is_the_single_request_with_its_own_seed(sampler: VllmSampler) -> None:
    """Design: sample j of (seed s) equals the single-sample request with seed s + j."""
    requests = some_requests(9)
    whole = dict(sampler.sample(requests))
    sampler.llm.reset_prefix_cache()
    sampler.n_samples = 1
    singles = [
        Request(100 * request.index + j, request.prompt, request.seed + j)
        for request in reversed(requests)
        for j in range(10)
    ]
    single = dict(sampler.sample(singles))
    assert {i: [single[100 * i + j][0] for j in range(10)] for i in whole} == whole


@pytest.mark.parametrize("in_flight", [3, 1000])
def test_texts_do_not_depend_on_order_batch_or_cache(sampler: VllmSampler, in_flight: int) -> None:
    requests = some_requests()
    expected = dict(sampler.sample(requests))  # with whatever the cache holds by now
    sampler.llm.reset_prefix_cache()
    sampler.in_flight = in_flight
    assert dict(sampler.sample(reversed(requests))) == expected


def test_requests_are_pulled_as_others_finish(sampler: VllmSampler) -> None:
    pulled = itertools.count()
    requests = (dataclasses.replace(r, index=next(pulled)) for r in some_requests(60))
    sampler.in_flight = 5
    ahead = []
    for taken, _ in enumerate(sampler.sample(requests), 1):
        ahead.append(next(pulled) - taken)
        pulled = itertools.count(ahead[-1] + taken)
    assert len(ahead) == 60
    # In the engine, and finished in one step but not yet taken.
    assert max(ahead) <= 2 * 5
    assert sampler.pending == 0


def test_prompts_beyond_one_batch_of_tokens(sampler: VllmSampler) -> None:
    """A seeded prompt that is computed in two parts ends a CPU engine of vLLM 0.32."""
    requests = [
        Request(i, PREAMBLE + f"{i} " * 60, SEED_STRIDE * i) for i in range(40)
    ]  # 256 of its 400 sequences at once, some 200 tokens each; vLLM's budget is 4,096 tokens
    assert len(dict(sampler.sample(requests))) == 40


def test_answer_stop_keeps_the_verdicts_and_saves_tokens(sampler: VllmSampler) -> None:
    requests = some_requests()
    begin = sampler.generated_tokens
    whole = dict(sampler.sample(requests))
    spent = sampler.generated_tokens - begin
    # Short texts that random completions do contain; the last never appears.
    aliases = ("at", "E", "ö", "was born in Atlantis")
    stopping = [dataclasses.replace(r, stops=aliases) for r in requests]
    begin = sampler.generated_tokens
    stopped = dict(sampler.sample(stopping))
    assert sampler.generated_tokens - begin < 0.9 * spent
    verdicts = [[contains(text, aliases) for text in whole[r.index]] for r in requests]
    assert 50 < sum(map(sum, verdicts)) < 350
    assert verdicts == [[contains(text, aliases) for text in stopped[r.index]] for r in requests]
    for request in requests:
        for text, longer in zip(stopped[request.index], whole[request.index], strict=True):
            assert longer.startswith(text)
            assert text == longer or text.endswith(aliases)


def test_a_caller_that_stops_listening_leaves_a_usable_engine(sampler: VllmSampler) -> None:
    requests = some_requests()
    expected = dict(sampler.sample(requests))
    results = sampler.sample(requests)
    next(results)
    results.close()
    assert sampler.pending == 0
    abandoned = sampler.sample(requests)
    next(abandoned)
    assert dict(sampler.sample(requests)) == expected


def test_a_prompt_without_room_is_refused_and_the_engine_goes_on(sampler: VllmSampler) -> None:
    tight = Request(0, "a" * 505, 0)  # 512 positions; a token a letter, and 12 new ones
    with pytest.raises(SettingsError, match="max_model_len = 512"):
        list(sampler.sample([tight]))
    with pytest.raises(SettingsError, match="max_model_len"):
        list(sampler.sample([dataclasses.replace(tight, prompt="a" * 5000)]))
    assert len(list(sampler.sample(some_requests(3)))) == 3


def test_the_record_names_engine_versions_and_dtype(sampler: VllmSampler) -> None:
    record = sampler.describe()
    assert record["engine"] == "vllm"
    assert record["device"] == "cpu"
    assert record["dtype"] == "float32"  # as stored; vLLM's own choice would be 16 bits
    assert record["max_model_len"] == 512  # the model's positions
    assert {"torch", "transformers"} < record["versions"].keys()
    assert record == sampler.describe()


IN_PROCESSES = """
import json, sys, time
from sftknow_eval.mastery.sampling import Request
from sftknow_eval.mastery.vllm_sampler import VllmSampler

def main():
    model, requests, sampling = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    sampler = VllmSampler(model, **sampling)
    texts = dict(sampler.sample(Request(*request) for request in requests))
    print(json.dumps(texts), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    main()
"""


def test_an_engine_in_processes_of_its_own_ends_with_a_killed_probe(
    sampler: VllmSampler, random_model: Path, tmp_path: Path
) -> None:
    """As on GPUs. vLLM 0.32 alone leaves its engine running, and the GPU's memory taken."""
    script = tmp_path / "sample.py"
    script.write_text(IN_PROCESSES)
    requests = some_requests(12)
    given = json.dumps([(r.index, r.prompt, r.seed) for r in requests])
    with subprocess.Popen(
        [sys.executable, str(script), str(random_model), given, json.dumps(SAMPLING)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    ) as probe:
        assert probe.stdout is not None
        texts = json.loads(probe.stdout.readline())
        children = psutil.Process(probe.pid).children(recursive=True)
        probe.kill()
    assert {int(index): group for index, group in texts.items()} == dict(sampler.sample(requests))
    assert len(children) >= 2  # the engine and its worker
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
