"""The built wheel works by itself: a fresh virtual environment, outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with torch, then the wheel; returns its bin folder."""
    folder = tmp_path_factory.mktemp("wheel")
    wheels = folder / "wheels"
    _run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels),
        cwd=ROOT,
    )
    (wheel,) = wheels.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "torch==2.13.0", cwd=folder)
    _run(*pip, wheel, "--constraint", ROOT / "constraints.txt", cwd=folder)
    return programs


def test_wheel_carries_templates_and_tasks(
    installed: Path, tmp_path: Path, small_data: Path, random_model: Path
) -> None:
    environment = {"SFTKNOW_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    where = _run(
        installed / "python",
        "-c",
        "import sftknow_eval; print(sftknow_eval.__file__)",
        cwd=tmp_path,
    )
    assert "site-packages" in where
    sftknow = installed / "sftknow"
    assert "place of birth" in _run(
        sftknow, "facts", "--data", small_data, "--json", cwd=tmp_path, **environment
    )
    probe = ("probe", random_model, "--data", small_data, "--out", tmp_path / "probe")
    _run(sftknow, *probe, "--backend", "hf", "--n-samples", "2", cwd=tmp_path, **environment)
    _run(sftknow, "install-tasks", cwd=tmp_path, **environment)
    _run(
        *(installed / "lm_eval", "--model", "hf", "--tasks", "sftknow_cbqa"),
        *("--model_args", f"pretrained={random_model},dtype=float32", "--device", "cpu"),
        *("--output_path", tmp_path / "results"),
        cwd=tmp_path,
        SFTKNOW_DATA=str(small_data),
        SFTKNOW_MASTERY=str(tmp_path / "probe" / "mastery.parquet"),
        **environment,
    )
    assert list((tmp_path / "results").rglob("results*.json"))
    _run(sftknow, "install-tasks", "--remove", cwd=tmp_path, **environment)
    packaged = _run(
        installed / "python",
        "-c",
        "from importlib.resources import files\n"
        "data = files('sftknow_eval') / 'data' / 'entity_questions'\n"
        "print(all((data / n).is_file() for n in"
        " ('templates.yaml', 'relations.yaml', 'aliases.json')))",
        cwd=tmp_path,
    )
    assert packaged.strip() == "True"
