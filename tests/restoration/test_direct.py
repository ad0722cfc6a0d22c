"""Files written past the page cache hold what was written, wherever blocks begin and end."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftknow_eval.restoration.direct import PAGE, OutputFile, page_buffer

SIZE = 5 * PAGE + 123


def written(path: Path, cuts: list[int], expected: np.ndarray, shift: int) -> bytes:
    """Write `expected` in the blocks between `cuts`, last block first, and return the file."""
    path.unlink(missing_ok=True)
    output = OutputFile(path, expected.size)
    places = [0, *sorted(cuts), expected.size]
    for begin, end in reversed(list(itertools.pairwise(places))):
        memory = page_buffer(SIZE + 2 * PAGE)[(begin + shift) % PAGE :][: end - begin]
        memory[:] = expected[begin:end]
        output.write(memory, begin)
    output.sync()
    output.close()
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, SIZE), max_size=6), st.sampled_from([0, 0, 1, 512]))
def test_any_blocks_in_any_order_give_the_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], shift: int
) -> None:
    # The expected bytes are the array's own; a shift puts memory elsewhere in its page than the
    # file's offset, which is what direct writes cannot do.
    expected = np.random.default_rng(len(cuts)).integers(0, 256, SIZE).astype(np.uint8)
    path = tmp_path_factory.getbasetemp() / "direct.bin"
    assert written(path, cuts, expected, shift) == expected.tobytes()


def test_a_file_system_that_refuses_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, refused = os.pwrite, []

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        flags = int(
            Path(f"/proc/self/fdinfo/{handle}").read_text().split("flags:")[1].split()[0], 8
        )
        if flags & os.O_DIRECT:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return genuine(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    expected = np.arange(SIZE).astype(np.uint8)
    assert written(tmp_path / "out", [PAGE + 7], expected, 0) == expected.tobytes()
    assert len(refused) <= 1  # it is not asked again


def test_a_system_without_direct_writes_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECT")
    expected = np.arange(SIZE).astype(np.uint8)
    assert written(tmp_path / "out", [PAGE, 2 * PAGE], expected, 0) == expected.tobytes()
