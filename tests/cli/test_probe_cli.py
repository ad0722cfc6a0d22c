"""`sftknow probe`: what it prints, what it writes, and every refusal at the command line."""

from __future__ import annotations

import re
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Sftknow

from sftknow_eval.mastery.find import find_mastery
from sftknow_eval.mastery.table import MasteryTable

QUICK = ("--backend", "hf", "--dtype", "float32", "--device", "cpu", "--n-samples", "2")
QUICK = (*QUICK, "--max-new-tokens", "4", "--limit", "6")


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    return Sftknow(monkeypatch, capsys)


def test_a_probe_writes_registers_and_shows_the_table(
    sftknow: Sftknow, tmp_path: Path, small_data: Path, random_model: Path
) -> None:
    command = ("probe", random_model, "--data", small_data, "--out", tmp_path / "out", *QUICK)
    called = sftknow(*command)
    assert called.code == 0, called.err
    for words in (
        "3 templates x 2 samples",
        "Backend: hf (as asked)",
        "6 facts",
        "Facts per stratum",
    ):
        assert words in called.out
    table = MasteryTable.read(tmp_path / "out")
    assert (len(table), table.meta.n_samples) == (6, 6)
    assert table.meta.selection == {
        "splits": ["train", "dev", "test"],
        "relations": None,
        "limit": 6,
    }
    assert table.meta.engine["dtype"] == "float32"
    assert find_mastery(base=str(random_model)).meta == table.meta
    written = (tmp_path / "out" / "mastery.parquet").read_bytes()
    again = sftknow(*command)
    assert again.code == 0
    assert "Already finished" in again.out
    assert "Starting the engine" in called.out
    assert re.search(r"[16]/6 facts, .* facts/s, .* prompts/s, 0:00:\d\d left", called.out)
    assert "Starting the engine" not in again.out
    assert (tmp_path / "out" / "mastery.parquet").read_bytes() == written
    refused = sftknow(*command, "--seed", "1")
    assert refused.code == 2
    assert "seed: there 0, now 1" in refused.err


def test_the_backend_taken_by_itself_is_stated(
    sftknow: Sftknow, tmp_path: Path, small_data: Path, random_model: Path
) -> None:
    # The machine that runs the tests has no GPU, or no vLLM, or both.
    quick = [arg for arg in QUICK if arg not in ("--backend", "hf")]
    called = sftknow("probe", random_model, "--data", small_data, "--out", tmp_path / "out", *quick)
    assert re.search(r"Backend: hf \(vLLM is (not installed|installed, but there is no GPU)\)",
                     called.out)  # fmt: skip


def test_a_dry_run_counts_and_estimates_and_writes_nothing(
    sftknow: Sftknow, tmp_path: Path, small_data: Path, random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    called = sftknow("probe", random_model, "--data", small_data, "--dry-run", *QUICK[:-2])
    assert called.code == 0, called.err
    # small_data: 35 facts x 3 templates x 2 samples x 4 tokens
    for name, number in (("facts", 35), ("prompts", 105), ("completions", 210)):
        assert re.search(rf"^{name} +{number}$", called.out, re.MULTILINE)
    assert re.search(r"^new tokens at most +840$", called.out, re.MULTILINE)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(random_model)
    tokens = _prompt_tokens(small_data, tokenizer)
    assert re.search(rf"^prompt tokens +{tokens:,} \(counted\)$", called.out, re.MULTILINE)
    assert re.search(r"^hours +0\.\d\d \(an estimate, from 105 prompts", called.out, re.MULTILINE)
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob("shards"))


def _prompt_tokens(data: Path, tokenizer: object) -> int:
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.templates import load_templates

    dataset = open_dataset(data)
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    return sum(
        len(tokenizer(templates.prompt(fact, i))["input_ids"])  # type: ignore[operator]
        for fact in dataset.probe_facts()
        for i in range(3)
    )


@pytest.fixture
def bad(sftknow: Sftknow, tmp_path: Path, small_data: Path, random_model: Path):  # type: ignore[no-untyped-def]
    """Return a function that calls a probe with something wrong and returns the message."""

    def call(*args: object, model: object = random_model, out: object = tmp_path / "out") -> str:
        called = sftknow("probe", model, "--data", small_data, "--out", out, *QUICK, *args)
        assert called.code == 2
        assert called.err.startswith("Error: ")
        assert "Traceback" not in called.err + called.out
        assert not (tmp_path / "out" / "mastery.parquet").exists()
        return " ".join(called.err.split())

    return call


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--relations", "P19,P21"), "'P21'"),
        (("--relations", "P106", "--split", "train"), "test split only"),
        (("--split", "valid"), "known are train, dev, test"),
        (("--limit", "0"), "limit is 0"),
        (("--n-samples", "0"), "n-samples is 0"),
        (("--temperature", "0"), "temperature"),
        (("--temperature", "inf"), "temperature is inf"),
        (("--seed", "-1"), "seed is -1"),
        (("--device", "tpu:7"), "The device 'tpu:7' cannot be used"),
        (("--dtype", "float7"), "dtype 'float7'"),
        (("--gpu-memory-utilization", "nan"), "gpu_memory_utilization is nan"),
        (("--backend", "tpu"), "Known are vllm, hf"),
        (("--tensor-parallel-size", "2"), "does not know tensor_parallel_size"),
        (("--batch-size", "many"), "batch_size is 'many'"),
        (("--model-args", "dtype=bfloat16"), "dtype is given twice"),
        (("--model-args", "pretrained=other"), "another model"),
        (("--keep-completions", "--answer-stop"), "give one of the two"),
        (("--templates", "none.yaml"), "none.yaml does not exist"),
    ],
)
def test_wrong_options_are_named(bad, args: tuple[str, ...], words: str) -> None:  # type: ignore[no-untyped-def]
    assert words in bad(*args)


def test_an_unknown_model_is_named(bad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "does not exist" in bad(model=tmp_path / "none")
    assert "not/a-model" in bad(model="not/a-model")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in bad(model=tmp_path / "empty")


def test_a_damaged_config_and_a_dangling_weight_file_are_named(  # type: ignore[no-untyped-def]
    bad, random_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(random_model, tmp_path / "model")
    (model / "config.json").write_text('{"model_type": ')
    assert "config.json is not readable as JSON" in bad(model=model)
    shutil.copy(random_model / "config.json", model)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("nowhere")
    assert "no content for model.safetensors" in bad(model=model)


def test_a_model_without_tokenizer_or_weights_is_named(  # type: ignore[no-untyped-def]
    bad, tmp_path: Path, random_model: Path
) -> None:
    bare = shutil.copytree(random_model, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert f"'{bare}' has no tokenizer" in bad(model=bare)
    unweighted = shutil.copytree(random_model, tmp_path / "unweighted")
    (unweighted / "model.safetensors").unlink()
    assert "holds no weights" in bad(model=unweighted)
    cut = shutil.copytree(random_model, tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in bad(model=cut)


def test_a_relation_without_templates_is_named(bad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "templates.yaml"
    file.write_text("P19: ['{subject} was born in']\n")
    message = bad("--templates", file)
    assert "P20" in message
    assert "P106" in message


def test_a_folder_that_cannot_be_written_is_named(bad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    assert "cannot be written" in bad(out=tmp_path / "file" / "out")


def test_a_full_disk_is_an_error_and_the_same_command_goes_on(
    sftknow: Sftknow, tmp_path: Path, small_data: Path, random_model: Path
) -> None:
    command = ("probe", random_model, "--data", small_data, "--out", tmp_path / "out", *QUICK)
    command = (*command, "--keep-completions", "--chunk-facts", "3")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, limits[1]))  # settings fit, texts do not
    try:
        called = sftknow(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert called.code == 2
    assert re.search(r"Error: No space left while writing\s.*/completions/", called.err, re.DOTALL)
    assert (tmp_path / "out" / "probe.json").exists()
    assert sftknow(*command).code == 0
    assert len(MasteryTable.read(tmp_path / "out")) == 6


def test_no_folder_is_an_error_but_not_in_a_dry_run(sftknow: Sftknow, random_model: Path) -> None:
    called = sftknow("probe", random_model)
    assert called.code == 2
    assert "--out DIR" in called.err


def test_vllm_missing_says_how_to_install_it(bad, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    class AllButVllm:
        def __init__(self, finder: Any) -> None:
            self.finder = finder

        def find_spec(self, name: str, *args: Any) -> Any:
            return None if name == "vllm" else self.finder.find_spec(name, *args)

    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr("sys.meta_path", [AllButVllm(finder) for finder in sys.meta_path])
    assert 'pip install "sftknow-eval[vllm]"' in bad("--backend", "vllm")
