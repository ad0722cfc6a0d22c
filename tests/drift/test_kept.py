"""Keys kept in memory and in a file, against the same keys sorted in NumPy."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_change import RATIOS, check_against_sort, make_pair

from sftknow_eval.drift import kept as kept_module
from sftknow_eval.drift.change import measure
from sftknow_eval.drift.kept import Kept
from sftknow_eval.drift.scan import Ranking
from sftknow_eval.errors import OutOfSpace


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pair of a million weights be large: a small sample, and little memory."""
    monkeypatch.setattr("sftknow_eval.drift.scan.sample_size", lambda elements: 20_000)
    monkeypatch.setattr(kept_module, "MEMORY", 9 * 3000)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=6),
    width=st.sampled_from([1, 30, 5000, 1 << 20, 1 << 30]),
)
def test_ranks_and_counts_are_those_of_sorted_keys(
    monkeypatch: pytest.MonkeyPatch, seed: int, sizes: list[tuple[int, int]], width: int
) -> None:
    monkeypatch.setattr(kept_module, "MEMORY", 2 * 700)
    rng, low = np.random.default_rng(seed), 12345
    with Kept(2) as kept:
        added = []
        for tensor, size in sizes:
            keys_JN = rng.integers(low, low + width, (2, size), dtype=np.uint32)
            kept.add(tensor, keys_JN, np.array([size // 3, size]))
            added.append((tensor, keys_JN[1]))
        descending = np.sort(np.concatenate([keys for _, keys in added]))[::-1]
        assert kept.size(1) == descending.size
        assert kept.size(0) == sum(size // 3 for _, size in sizes)
        for rank in {1, descending.size // 2, descending.size} - {0}:
            if rank > descending.size:
                continue
            threshold = kept.at_rank(1, rank, low, low + width - 1)
            assert threshold == descending[rank - 1]
            above_T, tied_T = kept.beyond(1, threshold, 4)
            for t in range(4):
                mine = np.concatenate(
                    [np.zeros(0), *(keys for tensor, keys in added if tensor == t)]
                )
                assert above_T[t] == (mine > threshold).sum()
                assert tied_T[t] == (mine == threshold).sum()


@pytest.mark.parametrize("order", ["top", "bottom", "random"])
@pytest.mark.parametrize("ties", [0.0, 0.9])
@pytest.mark.usefixtures("few_in_memory")
def test_keys_in_a_file_give_the_same_cuts(order: str, ties: float) -> None:
    base, finetuned, tensors = make_pair([600_000, 3, 70_000, 290_000], "BF16", seed=1, ties=ties)
    check_against_sort(base, finetuned, tensors, Ranking(order, seed=5))


@pytest.mark.usefixtures("few_in_memory")
def test_neither_file_nor_threads_change_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    base, finetuned, tensors = make_pair([400_000, 300_000, 10], "BF16", seed=4, ties=0.1)
    found = [measure(base, finetuned, tensors, RATIOS, statistics=True, threads=n) for n in (1, 3)]
    monkeypatch.setattr(kept_module, "MEMORY", 1 << 22)
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    found.append(measure(base, finetuned, tensors, RATIOS, statistics=True))
    assert found[0].concentration == found[1].concentration == found[2].concentration
    assert found[0].statistics == found[1].statistics == found[2].statistics


@pytest.mark.usefixtures("few_in_memory")
def test_a_full_disk_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLIMIT_FSIZE makes every write beyond it fail as on a full disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base, finetuned, tensors = make_pair([600_000], "BF16", seed=1, ties=0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OutOfSpace, match=f"No space left in {tmp_path} .* set TMPDIR"):
            measure(base, finetuned, tensors, RATIOS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_small_models_leave_the_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    base, finetuned, tensors = make_pair([500_000, 500_000], "BF16", seed=1, ties=0.2)
    assert measure(base, finetuned, tensors, RATIOS).elements == 1_000_000
