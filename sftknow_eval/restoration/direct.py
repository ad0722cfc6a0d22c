"""Large files that are written once, past the page cache where the system can.

A write through the page cache costs a page of memory and a copy for every 4 KiB, and pushes out
of it what is read again: the pair. Direct writes cost next to nothing, but file offset, length
and memory address have to be multiples of a page. So a block goes out in up to three parts:
its whole pages directly, and what is before and after them in the ordinary way. No page is
written in both ways.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
Bytes = NDArray[np.uint8]


def page_buffer(size: int) -> Bytes:
    """Return uninitialised memory that begins at a whole page."""
    memory = np.empty(size + PAGE, np.uint8)
    return memory[-memory.ctypes.data % PAGE :][:size]


class OutputFile:
    """A new file of a known size, written in blocks in any order, from any thread."""

    def __init__(self, path: Path, size: int) -> None:
        self._cached = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._direct: int | None = None
        self._refused = True
        try:
            if size:
                os.posix_fallocate(self._cached, 0, size)  # a full disk shows before any work
            # Not on every system, and not on every file system of one that has it.
            if flag := getattr(os, "O_DIRECT", 0):
                with contextlib.suppress(OSError):
                    self._direct = os.open(path, os.O_WRONLY | flag)
                    self._refused = False
        except BaseException:
            self.close()
            raise

    def write(self, block: Bytes, offset: int) -> None:
        """Write a block; directly if its address is at the same place in a page as `offset`."""
        head = -offset % PAGE
        end = (offset + block.size) // PAGE * PAGE - offset
        if self._refused or end <= head or (block.ctypes.data - offset) % PAGE:
            head = end = 0
        if head:
            _write_all(self._cached, block[:head], offset)
        done = self._write_pages(block[head:end], offset + head) + head if end else 0
        if done < block.size:
            _write_all(self._cached, block[done:], offset + done)

    def _write_pages(self, pages: Bytes, offset: int) -> int:
        """Write whole pages directly and return how many bytes; the rest has to go otherwise."""
        assert self._direct is not None
        try:
            return os.pwrite(self._direct, pages.data, offset) // PAGE * PAGE
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self._refused = True  # the file system wants another alignment
            return 0

    def sync(self) -> None:
        """Wait until all is on the disk."""
        os.fsync(self._cached)

    def close(self) -> None:
        """Close the file."""
        for handle in (self._cached, self._direct):
            if handle is not None:
                os.close(handle)


def _write_all(handle: int, block: Bytes, offset: int) -> None:
    done = 0
    while done < block.size:
        done += os.pwrite(handle, block[done:].data, offset + done)
