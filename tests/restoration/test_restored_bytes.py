"""Restored checkpoints against a full stable sort of all elements, byte for byte.

The expected checkpoints come from `restoration_pairs.reference`: all elements concatenated,
sorted with a stable sort, base values copied in PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restoration_pairs import (
    TYPES,
    in_region,
    llama_shapes,
    load,
    moved,
    random_tensors,
    reference,
    relative_change,
    same_bytes,
    save,
)

from sftknow_eval.drift.scan import Ranking
from sftknow_eval.errors import CheckpointError
from sftknow_eval.restoration.checkpoint import Checkpoint
from sftknow_eval.restoration.mask import Mask
from sftknow_eval.restoration.output import save_checkpoints, save_masked, save_masks
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.regions import Region
from sftknow_eval.restoration.restore import RestorationSource, restore_tensor
from sftknow_eval.restoration.run import ModelName, check_recipe, make_recipes

RATIOS = [0.7, 5, 20, 33.3, 60, 100]


def restore(
    base: Path,
    finetuned: Path,
    out: Path,
    ratios: list[float],
    region: Region | None = None,
    ranking: Ranking | None = None,
    threads: int = 2,
) -> list[Recipe]:
    """Make recipes and write their checkpoints."""
    region = region or Region()
    with Checkpoint.open(base) as one, Checkpoint.open(finetuned) as other:
        pair = match(one, other, region)
        names = ModelName(str(base)), ModelName(str(finetuned))
        recipes = make_recipes(pair, names, region, ratios, ranking or Ranking(), threads=threads)
        save_checkpoints(pair, recipes, out, threads=threads)
    return recipes


REGIONS = {
    "transformer": in_region,
    "attention": lambda name: "self_attn" in name,
    "mlp": lambda name: ".mlp." in name,
    "embedding": lambda name: "embed_tokens" in name or "lm_head" in name,
    "all": lambda name: "norm" not in name,
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    base_dtype=st.sampled_from(sorted(TYPES)),
    dtype=st.sampled_from(sorted(TYPES)),
    region=st.sampled_from(sorted(REGIONS)),
    order=st.sampled_from(["top", "bottom"]),
    ties=st.sampled_from([0.0, 0.5, 0.95]),
    shards=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    added=st.sampled_from([0, 3]),
)
def test_checkpoints_equal_a_full_stable_sort(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    base_dtype: str,
    dtype: str,
    region: str,
    order: str,
    ties: float,
    shards: tuple[int, int],
    added: int,
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    base = random_tensors(llama_shapes(), seed, base_dtype)
    finetuned = moved(base, seed, ties=ties, dtype=dtype)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = torch.ones((added, 16), dtype=TYPES[dtype])
        finetuned[name] = torch.cat([finetuned[name], rows])
    save(folder / "base", base, shards=shards[0])
    save(folder / "ft", finetuned, shards=shards[1])
    recipes = restore(
        folder / "base", folder / "ft", folder / "out", RATIOS, Region(name=region), Ranking(order)
    )
    names = [name for name in base if REGIONS[region](name)]
    size = sum(base[name].numel() for name in names)
    for ratio, recipe in zip(RATIOS, recipes, strict=True):
        count = int(size * round(ratio * 10) // 1000)
        expected = reference(base, finetuned, names, count, bottom=order == "bottom")
        assert same_bytes(load(folder / f"out/ratio-{ratio:g}"), expected)
        assert recipe.restored == count
        assert sum(t.restored for t in recipe.tensors.values()) == count


def test_tensors_of_many_blocks_are_written_alike_by_any_number_of_threads(tmp_path: Path) -> None:
    """1.1 million elements: several blocks a tensor, and ties that end in mid-tensor."""
    shapes = {f"model.layers.{i}.mlp.w{i}.weight": (700, 550) for i in range(3)}
    base = random_tensors(shapes, 5)
    finetuned = moved(base, 6, ties=0.8)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    names, size = sorted(base), 3 * 700 * 550
    for threads in (1, 3):
        out = tmp_path / f"out-{threads}"
        recipes = restore(tmp_path / "base", tmp_path / "ft", out, [3, 20, 50, 90], threads=threads)
        for recipe in recipes:
            expected = reference(base, finetuned, names, int(size * recipe.ratio // 100))
            assert same_bytes(load(out / f"ratio-{recipe.ratio:g}"), expected)
    last = recipes[-1]
    assert any(0 < tensor.quota < tensor.tied for tensor in last.tensors.values())
    assert last.saturated
    assert last.effective_restored == last.changed < last.restored


def test_random_order_restores_exactly_k_elements_and_repeats(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1, "F32")
    finetuned = {name: tensor + 1 for name, tensor in base.items()}
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned, shards=2)
    chosen = {}
    for seed, out in ((1, "a"), (1, "b"), (2, "c")):
        restore(
            *(tmp_path / "base", tmp_path / "ft", tmp_path / out, [10, 30]),
            ranking=Ranking("random", seed=seed),
        )
        found = {r: load(tmp_path / out / f"ratio-{r}") for r in (10, 30)}
        masks = {r: {n: found[r][n] == base[n] for n in base if in_region(n)} for r in (10, 30)}
        for ratio, mask in masks.items():
            assert sum(int(m.sum()) for m in mask.values()) == 5120 * ratio // 100
        assert all((~masks[10][n] | masks[30][n]).all() for n in masks[10])
        chosen[out] = masks[10]
    assert all(chosen["a"][n].equal(chosen["b"][n]) for n in chosen["a"])
    assert not all(chosen["a"][n].equal(chosen["c"][n]) for n in chosen["a"])


def test_bfloat16_arithmetic_selects_what_the_published_procedure_selects(tmp_path: Path) -> None:
    """Expected: torch.topk over the concatenated bfloat16 change, outside the tie bucket."""
    base = random_tensors(llama_shapes(hidden=32), 3)
    finetuned = moved(base, 4, ties=0.2)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    ranking = Ranking(arithmetic="bfloat16")
    recipes = restore(tmp_path / "base", tmp_path / "ft", tmp_path / "out", RATIOS, ranking=ranking)
    names = sorted(name for name in base if in_region(name))
    p = torch.cat([base[n].reshape(-1) for n in names])
    s = torch.cat([finetuned[n].reshape(-1) for n in names])
    r = (s - p).abs() / (p.abs() + 1e-8)
    for recipe in recipes:
        top = torch.topk(r, recipe.restored)
        border = top.values[-1]
        assert float(np.uint32(recipe.key).view(np.float32)) == float(border)
        written = load(tmp_path / f"out/ratio-{recipe.ratio:g}")
        after = torch.cat([written[n].reshape(-1) for n in names])
        assert after[r > border].equal(p[r > border])
        assert after[r < border].equal(s[r < border])
        theirs = torch.zeros(r.shape, dtype=torch.bool)
        theirs[top.indices] = True
        assert theirs[r > border].all()
        assert not theirs[r < border].any()


def test_tied_weights_are_ranked_once_and_restored_in_both_places(tmp_path: Path) -> None:
    shapes = llama_shapes()
    base = random_tensors(shapes, 1)
    base["lm_head.weight"] = base["model.embed_tokens.weight"].clone()
    finetuned = moved(base, 2, ties=0.3)
    finetuned["lm_head.weight"] = finetuned["model.embed_tokens.weight"].clone()
    tied = {"tie_word_embeddings": True}
    save(tmp_path / "base", {n: t for n, t in base.items() if n != "lm_head.weight"}, config=tied)
    save(tmp_path / "ft", finetuned, config=tied)
    region = Region(name="embedding")
    recipes = restore(tmp_path / "base", tmp_path / "ft", tmp_path / "out", [20], region)
    assert recipes[0].elements == 40 * 16
    written = load(tmp_path / "out/ratio-20")
    expected = reference(base, finetuned, ["model.embed_tokens.weight"], 128)
    name = "model.embed_tokens.weight"
    assert written[name].equal(expected[name])
    assert written["lm_head.weight"].equal(expected[name])


def test_a_recipe_restores_any_tensor_alone(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1)
    finetuned = moved(base, 2, ties=0.9)
    save(tmp_path / "base", base, shards=2)
    save(tmp_path / "ft", finetuned)
    (recipe,) = restore(tmp_path / "base", tmp_path / "ft", tmp_path / "out", [40])
    read = Recipe.read(tmp_path / "out/ratio-40/recipe.json")
    assert read == recipe
    expected = load(tmp_path / "out/ratio-40")
    with RestorationSource(tmp_path / "base", read) as source:
        assert source.missing == sorted(source.names)
        got = {n: source.restore(n, t) for n, t in sorted(finetuned.items(), reverse=True)}
        assert source.missing == []
        assert same_bytes(got, expected)
        untouched = finetuned["model.norm.weight"]
        assert source.restore("model.norm.weight", untouched) is untouched


def test_a_recipe_refuses_other_tensors(tmp_path: Path) -> None:
    base = random_tensors(llama_shapes(), 1, "F32")
    finetuned = moved(base, 2)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    (recipe,) = restore(tmp_path / "base", tmp_path / "ft", tmp_path / "out", [40])
    name = sorted(recipe.names)[0]
    p, s = base[name].numpy().copy(), finetuned[name].numpy().copy()
    p[0, 0] += 1
    with pytest.raises(CheckpointError, match=f"'{name}' of the base differs"):
        restore_tensor(recipe, name, p, s)
    assert restore_tensor(recipe, name, p, s, check=False).shape == s.shape
    for changed in (name, "lm_head.weight"):
        other = dict(finetuned) | {changed: finetuned[changed] + 1}
        save(tmp_path / f"other-{changed}", other)
        with (
            Checkpoint.open(tmp_path / "base") as one,
            Checkpoint.open(tmp_path / f"other-{changed}") as two,
            pytest.raises(CheckpointError, match=f"'{changed}' of the fine-tune differs"),
        ):
            check_recipe(recipe, match(one, two, recipe.region))


@pytest.mark.parametrize("packed", [True, False])
def test_masks_travel_out_and_in(tmp_path: Path, packed: bool) -> None:
    base = random_tensors(llama_shapes(), 1)
    finetuned = moved(base, 2, ties=0.5)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", finetuned)
    (recipe,) = restore(tmp_path / "base", tmp_path / "ft", tmp_path / "out", [30])
    with Checkpoint.open(tmp_path / "base") as one, Checkpoint.open(tmp_path / "ft") as two:
        pair = match(one, two, recipe.region)
        if packed:
            save_masks(pair, [recipe], tmp_path / "out")
            path = tmp_path / "out/ratio-30.mask.safetensors"
        else:
            from safetensors.torch import save_file

            expected = load(tmp_path / "out/ratio-30")
            path = tmp_path / "elsewhere.safetensors"
            masks = {n: expected[n] != finetuned[n] for n in recipe.names}
            save_file(masks, path)
        result = save_masked((one, two), Mask(path), tmp_path / "masked")
    assert same_bytes(load(result.path), load(tmp_path / "out/ratio-30"))
    with RestorationSource(tmp_path / "base", Mask(path)) as source:
        got = {name: source.restore(name, tensor) for name, tensor in finetuned.items()}
    assert same_bytes(got, load(tmp_path / "out/ratio-30"))


def test_the_mask_of_another_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = random_tensors(llama_shapes(), 1)
    save(tmp_path / "base", base)
    name = "model.layers.0.mlp.up_proj.weight"
    for mask, fault in (
        ({name: torch.zeros(3, dtype=torch.uint8)}, f"'{name}' holds 3 bytes.* need 64"),
        ({"h.0.attn": torch.zeros(3, dtype=torch.uint8)}, "'h.0.attn', a tensor that .* lacks"),
        ({name: torch.zeros(3)}, "has the type F32; expected U8"),
    ):
        save_file(mask, tmp_path / "mask.safetensors")
        with Checkpoint.open(tmp_path / "base") as one, pytest.raises(CheckpointError, match=fault):
            save_masked((one, one), Mask(tmp_path / "mask.safetensors"), tmp_path / "out")


def test_relative_change_in_the_reference_is_the_protocols() -> None:
    """|0.3 - 0.2| / (0.2 + 1e-8), by hand: about 0.5."""
    p, s = torch.tensor([[0.2]]), torch.tensor([[0.3]])
    assert relative_change(p, s)[0] == pytest.approx(0.5, rel=1e-6)
