"""Memory for restored tensors: used again when nobody holds it, and never before."""

from __future__ import annotations

import numpy as np
import torch

from sftknow_eval.restoration.memory import TensorMemory

COUNT = 3 << 20
HALF = np.dtype(np.uint16)


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_is_lent_again_once_the_last_holder_lets_go() -> None:
    memory = TensorMemory()
    array = memory.lend(COUNT, HALF)
    place = address(array)
    tensor = torch.from_numpy(array.view(np.int16))[5:]
    del array
    assert address(memory.lend(COUNT, HALF)) != place  # the tensor still holds it
    del tensor
    assert address(memory.lend(COUNT, HALF)) == place


def test_two_that_are_held_do_not_share() -> None:
    memory = TensorMemory()
    one, other = memory.lend(COUNT, HALF), memory.lend(COUNT, HALF)
    one[:], other[:] = 1, 2
    assert (one == 1).all()
    assert (other == 2).all()


def test_what_is_lent_outlives_the_release_of_what_is_free() -> None:
    memory = TensorMemory()
    array = memory.lend(COUNT, HALF)
    array[:] = 7
    memory.release()
    assert (array == 7).all()


def test_small_arrays_come_from_ordinary_memory() -> None:
    assert TensorMemory().lend(8, np.dtype(np.float32)).size == 8
