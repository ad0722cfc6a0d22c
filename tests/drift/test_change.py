"""Thresholds, quotas and statistics against a full stable sort of all elements in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from sftknow_eval.drift import change as change_module
from sftknow_eval.drift import kernels
from sftknow_eval.drift.change import measure
from sftknow_eval.drift.scan import Ranking
from sftknow_eval.drift.selection import restored_elements
from sftknow_eval.drift.tensors import Compared, cast
from sftknow_eval.errors import CheckpointError

RATIOS = (0.5, 1, 3, 5, 10, 20, 40, 60, 100)


@dataclass
class InMemory:
    """Weights that are arrays."""

    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def read(self, name: str, offset: int, out: NDArray[np.uint8]) -> None:
        flat = self.arrays[name].reshape(-1).view(np.uint8)
        out[:] = flat[offset : offset + out.size]

    def gather(self, name: str, offsets: NDArray[np.int64], out_PN: NDArray[np.uint8]) -> None:
        for offset, row in zip(offsets, out_PN, strict=True):
            self.read(name, int(offset), row)


def bits(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round float32 values to a stored type."""
    return cast(values, dtype)


def make_pair(
    sizes: list[int], dtype: str, *, seed: int, ties: float, base_dtype: str | None = None
) -> tuple[InMemory, InMemory, list[Compared]]:
    """Random pair; the share `ties` of elements takes few values, so that r repeats."""
    rng = np.random.default_rng(seed)
    base, finetuned, tensors = InMemory(), InMemory(), []
    for i, size in enumerate(sizes):
        p = (rng.standard_normal(size) * 0.02).astype(np.float32)
        s = (p + rng.standard_normal(size) * 2e-4).astype(np.float32)
        tied = rng.random(size) < ties
        p[tied] = 0.5
        s[tied] = rng.choice(np.array([0.5, 0.75, 1.0, 0.25], np.float32), size)[tied]
        p[rng.random(size) < 0.01] = 0.0
        name = f"layers.{(i * 7) % 11}.w{i}"
        base.arrays[name] = bits(p, base_dtype or dtype)
        finetuned.arrays[name] = bits(s, dtype)
        tensors.append(Compared(name, name, dtype, base_dtype or dtype, size, size))
    return base, finetuned, tensors


def reference_change(p: NDArray[np.generic], s: NDArray[np.generic]) -> NDArray[np.float32]:
    """The protocol's arithmetic as a NumPy one-liner."""
    x, y = cast(p, "F32"), cast(s, "F32")
    return np.abs(y - x) / (np.abs(x) + np.float32(1e-8))


def full_sort(
    base: InMemory, finetuned: InMemory, order: str, count: int, ranking: Ranking
) -> dict[str, NDArray[np.bool_]]:
    """Which elements a stable sort of all of them selects, in canonical order."""
    names = sorted(base.arrays)
    if order == "random":
        parts = []
        for name in names:
            keys = np.empty(base.arrays[name].size, np.uint32)
            kernels.random_keys(ranking.stream(name), 0, keys)
            parts.append(-keys.astype(np.int64))
        scores = np.concatenate(parts)
    else:
        r = np.concatenate([reference_change(base.arrays[n], finetuned.arrays[n]) for n in names])
        scores = r if order == "bottom" else -r
    chosen = np.zeros(scores.size, bool)
    chosen[np.argsort(scores, kind="stable")[:count]] = True
    ends = np.cumsum([base.arrays[n].size for n in names])
    return dict(zip(names, np.split(chosen, ends[:-1]), strict=True))


def check_against_sort(
    base: InMemory, finetuned: InMemory, tensors: list[Compared], ranking: Ranking
) -> None:
    found = measure(base, finetuned, tensors, RATIOS, ranking, threads=2)
    for ratio, cut, effective in zip(RATIOS, found.cuts, found.effective, strict=True):
        count = restored_elements(found.elements, ratio)
        expected = full_sort(base, finetuned, ranking.order, count, ranking)
        assert cut.wanted == count
        moved = 0
        for t, tensor in enumerate(found.tensors):
            assert cut.restored_T[t] == expected[tensor.name].sum()
            p, s = base.arrays[tensor.name], finetuned.arrays[tensor.name]
            moved += int((reference_change(p, s) > 0)[expected[tensor.name]].sum())
            keys = np.empty(p.size, np.uint32)
            wide = [cast(a, "F32") for a in (p, s)]
            ranking.fill(tensor.name, wide[0], wide[1], 0, keys)
            chosen = keys > cut.threshold
            chosen[np.flatnonzero(keys == cut.threshold)[: cut.quota_T[t]]] = True
            np.testing.assert_array_equal(chosen, expected[tensor.name])
        assert effective == moved


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    base_dtype=st.sampled_from(["BF16", "F16", "F32"]),
    order=st.sampled_from(["top", "bottom", "random"]),
    seed=st.integers(0, 10**6),
    ties=st.sampled_from([0.0, 0.3, 0.95]),
)
def test_cuts_are_those_of_a_full_stable_sort(
    sizes: list[int], dtype: str, base_dtype: str, order: str, seed: int, ties: float
) -> None:
    base, finetuned, tensors = make_pair(sizes, dtype, seed=seed, ties=ties, base_dtype=base_dtype)
    check_against_sort(base, finetuned, tensors, Ranking(order, seed=seed))


@pytest.mark.parametrize("order", ["top", "bottom", "random"])
@pytest.mark.parametrize("ties", [0.0, 0.9])
def test_a_sample_of_few_elements_gives_the_same_cuts(
    monkeypatch: pytest.MonkeyPatch, order: str, ties: float
) -> None:
    monkeypatch.setattr("sftknow_eval.drift.scan.sample_size", lambda elements: 20_000)
    base, finetuned, tensors = make_pair([600_000, 3, 70_000, 290_000], "BF16", seed=1, ties=ties)
    check_against_sort(base, finetuned, tensors, Ranking(order, seed=5))


def test_intervals_that_miss_are_replaced_by_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that says nothing true must not change the result."""
    calls = []
    search = change_module.search

    def counted(*args: object) -> object:
        calls.append(args)
        return search(*args)  # type: ignore[arg-type]

    def wrong(sample: object, elements: int, wanted: list[int], largest: int) -> object:
        return dict.fromkeys(wanted, (5, 9))

    monkeypatch.setattr(change_module, "search", counted)
    monkeypatch.setattr(change_module, "estimate", wrong)
    base, finetuned, tensors = make_pair([40_000, 30_000], "BF16", seed=3, ties=0.2)
    check_against_sort(base, finetuned, tensors, Ranking())
    assert len(calls) == 1


def test_the_number_of_threads_changes_nothing() -> None:
    base, finetuned, tensors = make_pair([400_000, 300_000, 10], "BF16", seed=4, ties=0.1)
    one, three = (
        measure(base, finetuned, tensors, RATIOS, statistics=True, threads=n) for n in (1, 3)
    )
    assert one.whole == three.whole
    assert one.statistics == three.statistics
    assert one.concentration == three.concentration
    assert one.base_checksums == three.base_checksums
    assert [c.threshold for c in one.cuts] == [c.threshold for c in three.cuts]


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F16"])
def test_relative_change_has_the_bits_of_the_numpy_one_liner(dtype: str) -> None:
    base, finetuned, tensors = make_pair([100_000], dtype, seed=6, ties=0.1)
    name = tensors[0].name
    p, s = base.arrays[name], finetuned.arrays[name]
    expected = reference_change(p, s).view(np.uint32)
    keys = np.empty(p.size, np.uint32)
    Ranking().fill(name, *(a.astype(np.float32) if dtype == "F16" else a for a in (p, s)), 0, keys)
    np.testing.assert_array_equal(keys, expected)


def test_no_kernel_fuses_multiply_and_add() -> None:
    """Compiled anew, as code from numba's cache cannot be inspected."""
    for kernel in (kernels.relative_change, kernels.relative_change_bfloat16):
        fresh = njit(nogil=True, error_model="numpy")(kernel.py_func)
        for values in (np.zeros(4, np.uint16), np.zeros(4, np.float32)):
            fresh(values, values, np.zeros(4, np.uint32))
        for code in fresh.inspect_asm().values():
            assert "fmadd" not in code
            assert "fnmadd" not in code
            assert "div" in code


def test_bfloat16_arithmetic_is_pytorchs() -> None:
    """Expected: |s - p| / (|p| + 1e-8) on bfloat16 tensors, and topk over them."""
    base, finetuned, tensors = make_pair([50_000, 30_000], "BF16", seed=7, ties=0.1)
    ordered = sorted(t.name for t in tensors)

    def as_torch(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)

    p = torch.cat([as_torch(base.arrays[n]) for n in ordered])
    s = torch.cat([as_torch(finetuned.arrays[n]) for n in ordered])
    r = (s - p).abs() / (p.abs() + 1e-8)
    found = measure(base, finetuned, tensors, RATIOS, Ranking(arithmetic="bfloat16"))
    for cut in found.cuts:
        top = torch.topk(r, cut.wanted)
        threshold = np.uint32(cut.threshold).view(np.float32)
        assert float(top.values[-1]) == float(threshold)
        above = set(torch.nonzero(r > top.values[-1]).flatten().tolist())
        assert above <= set(top.indices.tolist())
        assert int(cut.above_T.sum()) == len(above)
        assert int(cut.tied_T.sum()) == int((r == top.values[-1]).sum())


def test_statistics_are_those_of_numpy() -> None:
    base, finetuned, tensors = make_pair([300_000, 50_000], "BF16", seed=8, ties=0.0)
    found = measure(base, finetuned, tensors, RATIOS, statistics=True)
    assert found.whole is not None
    names = [t.name for t in found.tensors]
    r = np.concatenate([reference_change(base.arrays[n], finetuned.arrays[n]) for n in names])
    exact = r.astype(np.float64)
    assert found.whole.elements == r.size
    assert found.whole.total == pytest.approx(exact.sum(), rel=1e-12)
    descending = np.sort(exact)[::-1]
    for ratio, share in zip(RATIOS, found.concentration, strict=True):
        count = restored_elements(r.size, ratio)
        assert share == pytest.approx(descending[:count].sum() / exact.sum(), rel=1e-9)
    expected = np.quantile(exact, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    np.testing.assert_allclose(found.whole.quantiles, expected, rtol=0.01)
    for t, name in enumerate(names):
        x, y = (cast(a.arrays[name], "F32").astype(np.float64) for a in (base, finetuned))
        stats = found.statistics[t]
        assert stats.change_norm == pytest.approx(np.linalg.norm(y - x), rel=1e-12)
        assert stats.base_norm == pytest.approx(np.linalg.norm(x), rel=1e-12)
        assert (
            found.changed_T[t]
            == (reference_change(base.arrays[name], finetuned.arrays[name]) > 0).sum()
        )


@pytest.mark.parametrize("side", ["base", "fine-tune"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["top", "bottom", "random"])
def test_values_that_are_not_finite_are_named(side: str, wrong: float, order: str) -> None:
    base, finetuned, tensors = make_pair([300_000, 50_000], "F32", seed=9, ties=0.0)
    name = tensors[0].name
    (base if side == "base" else finetuned).arrays[name][277_777] = wrong
    with pytest.raises(CheckpointError, match=f"{side}'s tensor '{name}' .* index 277777"):
        measure(base, finetuned, tensors, [10], Ranking(order))


def test_a_change_that_overflows_is_ranked_first() -> None:
    base, finetuned, tensors = make_pair([1000], "F32", seed=10, ties=0.0)
    name = tensors[0].name
    base.arrays[name][5], finetuned.arrays[name][5] = 0.0, 3e38
    found = measure(base, finetuned, tensors, [0.1])
    assert found.cuts[0].threshold == kernels.INFINITE


def test_added_rows_are_not_compared() -> None:
    base, finetuned, tensors = make_pair([300_000], "BF16", seed=11, ties=0.0)
    name = tensors[0].name
    base.arrays[name] = base.arrays[name][:250_000]
    grown = [Compared(name, name, "BF16", "BF16", 300_000, 250_000)]
    cut_down = InMemory({name: finetuned.arrays[name][:250_000]})
    same = [Compared(name, name, "BF16", "BF16", 250_000, 250_000)]
    one = measure(base, finetuned, grown, RATIOS)
    other = measure(base, cut_down, same, RATIOS)
    assert one.elements == 250_000
    assert [c.threshold for c in one.cuts] == [c.threshold for c in other.cuts]


def test_a_base_value_too_large_for_the_finetunes_type_is_refused() -> None:
    base, finetuned, tensors = make_pair([1000], "F16", seed=12, ties=0.0, base_dtype="F32")
    base.arrays[tensors[0].name][7] = 70_000.0
    with pytest.raises(CheckpointError, match=r"70000 at flat index 7.* F16"):
        measure(base, finetuned, tensors, [10])


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 1), (29, 290), (57, 570), (100, 1000), (0, 0)])
def test_element_counts_do_not_suffer_from_rounding(ratio: float, count: int) -> None:
    """1000 * 0.29 is 289.99999999999994 in floating point."""
    assert restored_elements(1000, ratio) == count
