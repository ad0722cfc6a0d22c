"""`sftknow drift weights` on a pair whose report can be worked out with NumPy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from sftknow_eval.cli.drift import app

RATIOS = (1, 3, 5, 10, 20, 40, 60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two layers; layer 1's attention moves most; 40% of all elements stay as they are."""
    root = tmp_path_factory.mktemp("report")
    generator = torch.Generator().manual_seed(3)
    base, finetuned = {}, {}
    for layer in range(2):
        for place, step in (("self_attn.q_proj", 4e-3 if layer else 1e-3), ("mlp.up_proj", 1e-3)):
            name = f"model.layers.{layer}.{place}.weight"
            base[name] = torch.randn((64, 48), generator=generator) * 0.05
            change = torch.randn((64, 48), generator=generator) * step
            change[torch.rand((64, 48), generator=generator) < 0.4] = 0
            finetuned[name] = base[name] + change
    for folder, tensors in (("base", base), ("ft", finetuned)):
        (root / folder).mkdir()
        save_file(tensors, root / folder / "model.safetensors")
        (root / folder / "config.json").write_text('{"model_type": "llama"}')
    return root / "base", root / "ft"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["weights", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def changes(models: tuple[Path, Path]) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    base, finetuned = (load_file(folder / "model.safetensors") for folder in models)
    found = {}
    for name in sorted(base):
        p, s = base[name].numpy().reshape(-1), finetuned[name].numpy().reshape(-1)
        found[name] = np.abs(s - p) / (np.abs(p) + np.float32(1e-8))
    return found


def test_the_report_agrees_with_numpy(models: tuple[Path, Path]) -> None:
    report = json.loads(call(*models, "--json"))
    r = changes(models)
    everything = np.concatenate(list(r.values()))
    owners = np.repeat(np.arange(len(r)), [v.size for v in r.values()])
    order = np.argsort(-everything, kind="stable")
    assert report["elements"] == everything.size
    assert report["changed"] == int((everything > 0).sum())
    places = {at["ratio"]: j for j, at in enumerate(report["ratios"])}
    for ratio in RATIOS:
        at = report["ratios"][places[ratio]]
        count = everything.size * ratio // 100
        chosen = order[:count]
        share = everything[chosen].astype(float).sum() / everything.astype(float).sum()
        assert at["restored"] == count
        assert at["concentration"] == pytest.approx(share, rel=1e-9)
        assert at["effective_restored"] == int((everything[chosen] > 0).sum())
        assert at["saturated"] == (count >= (everything > 0).sum())
        expected = np.bincount(owners[chosen], minlength=len(r))
        got = {row["name"]: row["restored"][places[ratio]] for row in report["tensors"]}
        assert [got[name] for name in r] == expected.tolist()
        attention = report["modules"]["self_attn.q_proj"]
        assert attention["restored"][places[ratio]] == expected[[1, 3]].sum()
        assert attention["enrichment"][places[ratio]] == pytest.approx(
            expected[[1, 3]].sum() / count / 0.5
        )
        layer = report["layers"]["1"]
        assert layer["share"][places[ratio]] == pytest.approx(expected[[2, 3]].sum() / count)
    assert report["ratios"][places[60]]["saturated"] == ((everything > 0).mean() <= 0.6)


def test_the_plots_need_nothing_from_elsewhere(models: tuple[Path, Path], tmp_path: Path) -> None:
    output = call(*models, "--out", tmp_path)
    assert "weights compared" in output
    assert "self_attn.q_proj" in output
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("change.json", "concentration.svg", "concentration.png", "layers.svg", "layers.png"),
    }
    for name in ("concentration.svg", "layers.svg"):
        text = (tmp_path / name).read_text()
        assert set(re.findall(r"https?://[^\"' )]+", text)) <= {
            *("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"),
        }
    assert "self_attn.q_proj" in (tmp_path / "layers.svg").read_text()
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_identical_checkpoints_are_reported_as_such(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "identical" in call(models[0], models[0], "--out", tmp_path)
    report = json.loads((tmp_path / "change.json").read_text())
    assert report["changed"] == 0
    assert all(at["concentration"] is None for at in report["ratios"])
