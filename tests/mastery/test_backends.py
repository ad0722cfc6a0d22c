"""Which engine, and which of its arguments: names of lm-eval in, a sampler's names out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.mastery.backends import (
    check_backend,
    check_engine_args,
    engine_versions,
    make_sampler,
    tokenizer_digest,
)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"batch_size": 8}, "max_num_seqs=N"),
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
        ({"data_parallel_size": 0}, "data_parallel_size is 0"),
        ({"data_parallel_size": "two"}, "data_parallel_size is 'two'"),
    ],
)
def test_what_vllm_does_not_take_is_said_with_its_remedy(
    args: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        check_engine_args("vllm", args)


def test_lm_evals_spellings_become_vllms() -> None:
    given = {"batch_size": "auto", "max_length": 512, "enforce_eager": True}
    assert check_engine_args("vllm", given) == {"max_model_len": 512, "enforce_eager": True}
    assert given["max_length"] == 512, "the caller's arguments are left alone"


def test_every_unknown_argument_of_the_hf_backend_is_listed() -> None:
    given = {"dtype": "float32", "max_num_seqs": 4, "batch_size": 8, "enforce_eager": True}
    with pytest.raises(SettingsError, match="does not know enforce_eager, max_num_seqs"):
        check_engine_args("hf", given)
    assert check_engine_args("hf", {"batch_size": "8"}) == {"batch_size": "8"}


def test_unknown_backends_name_the_known() -> None:
    with pytest.raises(SettingsError, match="Known are vllm, hf"):
        check_backend("tpu")


def test_versions_are_those_of_the_packages_that_compute() -> None:
    assert {"sftknow-eval", "torch", "transformers"} <= set(engine_versions("hf"))
    assert "vllm" not in engine_versions("hf")


def test_a_tokenizer_is_known_by_its_files(tmp_path: Path, random_model: Path) -> None:
    first = tokenizer_digest(random_model, "m")
    copy = shutil.copytree(random_model, tmp_path / "copy")
    (copy / "config.json").write_text("{}")
    assert tokenizer_digest(copy, "m") == first
    (copy / "tokenizer.json").write_text("{}")
    assert tokenizer_digest(copy, "m") != first
    for file in copy.glob("*tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="'m' has no tokenizer"):
        tokenizer_digest(copy, "m")


def test_the_hf_sampler_is_made_with_what_was_asked(random_model: Path) -> None:
    args = {"dtype": "float32", "device": "cpu", "batch_size": "16"}
    sampler = make_sampler(
        "hf", str(random_model), args, n_samples=3, temperature=0.5, max_tokens=4, window=42
    )
    described = sampler.describe()
    assert (sampler.n_samples, described["dtype"], described["batch_size"]) == (3, "float32", 16)
    sampler.close()
