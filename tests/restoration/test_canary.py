"""The canary alone, on matrices made here: what it accepts and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sftknow_eval.errors import CheckpointError
from sftknow_eval.restoration.canary import Expectation, Rows, columns_of, row_hashes


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def rows(**matrices: torch.Tensor) -> Iterator[Rows]:
    for name, matrix in matrices.items():
        yield from Rows.of(name, matrix)


def expecting(ranks: int = 1, rank: int = 0, **tensors: torch.Tensor) -> Expectation:
    expectation = Expectation(torch.float32, ranks, rank)
    for name, tensor in tensors.items():
        expectation.add(name, tensor, checked=True)
    return expectation


def test_fused_transposed_stacked_and_padded_matrices_are_recognised() -> None:
    q, k, down = drawn(8, 16), drawn(4, 16), drawn(16, 8)
    experts = drawn(3, 16, 5)
    fused = torch.cat([q, k, torch.zeros(4, 16)])  # padding of a vocabulary
    expectation = expecting(q=q, k=k, down=down, experts=experts)
    stacked = experts.transpose(1, 2)
    found = expectation.check(rows(qk=fused, down=down.t(), experts=stacked), [])
    # The checksum goes by content: another order of the layers gives the same.
    assert found == expectation.check(rows(experts=stacked, down=down.t(), qk=fused.flip(0)), [])


def test_one_wrong_value_is_seen() -> None:
    matrix = drawn(8, 16)
    wrong = matrix.clone()
    wrong[5, 3] = torch.nextafter(wrong[5, 3], torch.tensor(9.0))
    with pytest.raises(CheckpointError, match="'q' computes with 1 rows"):
        expecting(q=matrix).check(rows(q=wrong), [])


def test_a_tensor_that_no_layer_computes_with_is_named() -> None:
    with pytest.raises(CheckpointError, match="restored tensor 'up'"):
        expecting(q=drawn(8, 16), up=drawn(3, 16)).check(rows(q=drawn(8, 16)), [])


def test_vectors_are_found_whole_or_within_fused_ones() -> None:
    q, k = drawn(8), drawn(4)
    expecting(q=q, k=k).check([], [torch.cat([q, k])])
    with pytest.raises(CheckpointError, match="restored tensor 'k'"):
        expecting(q=q, k=k).check([], [torch.cat([q, k + 1])])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_share_of_rows_or_columns_is_recognised(rank: int) -> None:
    up, down = drawn(8, 16), drawn(16, 8)
    mine = up[4 * rank :][:4], down[:, 4 * rank :][:, :4]
    expecting(2, rank, up=up, down=down).check(rows(up=mine[0], down=mine[1]), [])
    with pytest.raises(CheckpointError, match="'down' computes with 16 rows"):
        expecting(2, 1 - rank, up=up, down=down).check(rows(up=mine[0], down=mine[1]), [])


def test_of_long_rows_columns_over_their_whole_length_are_taken() -> None:
    columns = columns_of(4096)
    assert len(columns) == len(set(columns.tolist())) == 4
    assert columns.min() == 0
    assert columns.max() == 4095
    assert len(columns_of(256)) == 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [5, 16, 700])
def test_a_hash_depends_on_every_value_taken_and_not_on_the_sign_of_zero(
    dtype: torch.dtype, k: int
) -> None:
    rows_NC = drawn(3, len(columns_of(k))).to(dtype)
    rows_NC[:, 1] = 0
    before = row_hashes(rows_NC, k)
    assert len(set(before.tolist())) == 3
    for column in range(rows_NC.shape[1]):
        changed = rows_NC.clone()
        changed[0, column] += 1
        after = row_hashes(changed, k)
        assert after[0] != before[0]
        assert (after[1:] == before[1:]).all()
    rows_NC[:, 1] = -0.0
    assert (row_hashes(rows_NC, k) == before).all()


def test_values_are_compared_in_the_type_that_is_computed_with() -> None:
    matrix = drawn(8, 16)
    expectation = Expectation(torch.bfloat16)
    expectation.add("q", matrix, checked=True)
    expectation.check(rows(q=matrix.to(torch.bfloat16)), [])
