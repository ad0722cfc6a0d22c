"""Every way to run the tasks, each as the command that a user types, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftknow_eval.evaluation.install import lm_eval_tasks, tasks_path
from sftknow_eval.evaluation.results import Outcome, outcomes_of
from sftknow_eval.mastery.find import register

PROGRAMS = Path(sys.executable).parent
ON_CPU = ("--device", "cpu", "--batch_size", "32")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # The engine in lm-eval's own process starts faster (docs/vllm.md).
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
TEST_FACTS = 120  # of the tiny world


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_mastery: Path) -> Path:
    """A cache in which the tiny base's mastery table is registered, as after 'sftknow probe'."""
    folder = tmp_path / "shared-cache"
    monkeypatch.setenv("SFTKNOW_CACHE", str(folder))
    register(tiny_mastery)
    return folder


def command(program: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAMS / program), *map(str, words)],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def logged(folder: Path) -> list[Outcome]:
    """Return the outcomes in the sample files that lm-eval wrote."""
    samples = {
        path.name.removeprefix("samples_").rsplit("_", 1)[0]: [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in folder.rglob("samples_*.jsonl")
    }
    return outcomes_of({"samples": samples})


def check(done: subprocess.CompletedProcess[str], results: Path, style: str) -> list[Outcome]:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sftknow_cbqa_id" in done.stdout
    assert f"({style}, test)" in done.stdout
    (file,) = results.rglob("results_*.json")
    scores = json.loads(file.read_text(encoding="utf-8"))
    assert set(scores["groups"]) == {"sftknow_cbqa_id", "sftknow_cbqa_ood"}
    outcomes = logged(results)
    assert len(outcomes) == TEST_FACTS
    return outcomes


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """The tasks in the installed lm-eval, by the command, and out again by the command."""
    target = lm_eval_tasks() / "sftknow_cbqa"
    done = command("sftknow", "install-tasks", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert target.is_dir()
    yield target
    done = command("sftknow", "install-tasks", "--remove", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not target.exists()


def test_plain_lm_eval_after_install_tasks_needs_nothing_but_the_model(
    cache: Path, installed: Path, tuned: Path, tmp_path: Path
) -> None:
    # Base, data and prompt style stand in the training record, the table in the cache.
    words = ("--model", "hf", "--model_args", f"pretrained={tuned}", "--tasks", "sftknow_cbqa")
    results = tmp_path / "results"
    output = ("--output_path", results, "--log_samples")
    done = command("lm_eval", *words, *ON_CPU, *output, cwd=tmp_path)
    check(done, results, "paper")


@pytest.mark.vllm
def test_plain_lm_eval_on_vllm(cache: Path, installed: Path, tuned: Path, tmp_path: Path) -> None:
    engine = f"pretrained={tuned},dtype=float32,enforce_eager=True,max_model_len=256,block_size=32"
    words = ("--model", "vllm", "--model_args", engine, "--tasks", "sftknow_cbqa")
    results = tmp_path / "results"
    output = ("--output_path", results, "--log_samples", "--batch_size", "auto")
    done = command("lm_eval", *words, *output, cwd=tmp_path)
    outcomes = check(done, results, "paper")
    assert any(outcome.recalled for outcome in outcomes)


def test_sftknow_lm_eval_takes_lm_evals_options_and_the_base(
    cache: Path, tuned: Path, tiny_world: Path, tmp_path: Path
) -> None:
    # lm-eval's own hf model knows no 'base': it goes to the tasks.
    model = f"pretrained={tuned},base={tiny_world / 'base'},dtype=float32"
    metadata = json.dumps({"data": str(tiny_world), "style": "plain"})
    words = ("--model", "hf", "--model_args", model, "--tasks", "sftknow_cbqa")
    results = tmp_path / "results"
    output = ("--metadata", metadata, "--output_path", results, "--log_samples")
    done = command("sftknow", "lm-eval", *words, *ON_CPU, *output, cwd=tmp_path)
    check(done, results, "plain")


def test_without_a_table_the_run_ends_with_the_command_that_makes_it(
    tuned: Path, tmp_path: Path
) -> None:
    words = ("--model", "hf", "--model_args", f"pretrained={tuned}", "--tasks", "sftknow_cbqa")
    done = command("sftknow", "lm-eval", *words, *ON_CPU, cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: No mastery table" in done.stderr
    assert "sftknow probe" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def served(tuned: Path, tmp_path: Path) -> Iterator[str]:
    """The fine-tune behind `vllm serve` on this machine; the address of its completions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "256")
    where = ("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tuned")
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen(
        [PROGRAMS / "vllm", "serve", tuned, *where, *options, "--block-size", "32"],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models", server, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}/v1/completions"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
        log.close()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
    pytest.fail(f"no server after four minutes: {log.read_text()[-3000:]}")


@pytest.mark.vllm
def test_include_path_and_a_served_model(
    cache: Path, served: str, tuned: Path, tiny_world: Path, tmp_path: Path
) -> None:
    # The server puts the text into tokens itself, its beginning-of-sequence token included.
    model = f"model=tuned,base_url={served},tokenizer_backend=none,num_concurrent=8"
    base, data = str(tiny_world / "base"), str(tiny_world)
    metadata = json.dumps({"base": base, "data": data, "style": "paper"})
    words = ("--model", "local-completions", "--model_args", model, "--tasks", "sftknow_cbqa")
    results = tmp_path / "results"
    output = ("--metadata", metadata, "--output_path", results, "--log_samples")
    done = command("lm_eval", *words, "--include_path", tasks_path(), *output, cwd=tmp_path)
    outcomes = check(done, results, "paper")
    assert any(outcome.recalled for outcome in outcomes)
