"""Write restored checkpoints: all of a sweep in one read of the pair.

Each file of the fine-tune is copied in layout, its header byte for byte, and its tensors are
written at the same offsets. A checkpoint is made in a hidden folder and renamed last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftknow_eval.drift.tensors import HELD_AS, Array
from sftknow_eval.drift.threads import for_each
from sftknow_eval.errors import OutOfSpace, SettingsError
from sftknow_eval.models import SAFETENSORS_BITS
from sftknow_eval.restoration.blocks import TensorRestorer
from sftknow_eval.restoration.checkpoint import INDEX, ModelWeights, StoredTensor

# Elements: small enough that the outputs of seven ratios stay in the second cache.
WRITE_BLOCK = 1 << 17
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ckpt"}
_LEFT_BEHIND = {"README.md", "trainer_state.json", "adapter_config.json"}
_TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "spiece.model"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja",),
)


@dataclass(frozen=True)
class Job:
    """What to write.

    Attributes:
        base: the base.
        finetuned: the fine-tune.
        folders: one new checkpoint each.
        restorers: the restorer of a tensor, for all folders at once, or None if it stays.
        base_name: the base's name of a tensor that is restored.
    """

    base: ModelWeights
    finetuned: ModelWeights
    folders: Sequence[Path]
    restorers: Callable[[str], TensorRestorer | None]
    base_name: Callable[[str], str]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this run; the lock ends with the process, however it ends.

    Raises:
        SettingsError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".restore.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"Another run is writing into {folder}. Wait until it has ended, or choose another "
                "--out."
            ) from error
        yield


@contextlib.contextmanager
def unfinished(finals: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield hidden folders that become the final ones only if the block ends without error.

    Raises:
        OutOfSpace: the disk filled up; nothing is left of what was not finished.
    """
    partials = [final.with_name(f".{final.name}.partial") for final in finals]
    try:
        for partial in partials:
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            partial.mkdir(parents=True)
        yield partials
        for partial, final in zip(partials, finals, strict=True):
            partial.replace(final)
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpace(
                f"No space left while writing {', '.join(str(final) for final in finals)}. "
                "Checkpoints that were finished before are intact: free some space, or write fewer "
                "ratios at once, and run the same command again."
            ) from error
        raise
    finally:
        for partial in partials:
            shutil.rmtree(partial, ignore_errors=True)


def copy_side_files(base: Path, finetuned: Path, layout: Path, target: Path) -> None:
    """Copy configuration, tokenizer, code and the like; the tokenizer from where there is one.

    Args:
        base: the base's folder.
        finetuned: the fine-tune's folder (an adapter's, if it is one).
        layout: the folder whose weight files are copied in layout.
        target: the new checkpoint.
    """
    for folder in dict.fromkeys((layout, finetuned)):
        for path in sorted(folder.iterdir()):
            index = path.name.endswith(".index.json") and (path.name != INDEX or folder != layout)
            skip = path.suffix in _WEIGHTS or path.name in _LEFT_BEHIND or path.name.startswith(".")
            if path.is_file() and not skip and not index:
                shutil.copyfile(path, target / path.name)
    if not any((target / name).is_file() for name in _TOKENIZER[:3]):
        for name in _TOKENIZER:
            if (base / name).is_file():
                shutil.copyfile(base / name, target / name)
    if not (target / "generation_config.json").is_file():
        with contextlib.suppress(FileNotFoundError):
            name = "generation_config.json"
            shutil.copyfile(base / name, target / name)


class _Worker:
    """One thread's buffers, and the restorer of the tensor it is at."""

    def __init__(self, outputs: int) -> None:
        self.base, self.finetuned = (np.empty(8 * WRITE_BLOCK, np.uint8) for _ in range(2))
        self.out = np.empty(8 * WRITE_BLOCK * outputs, np.uint8)
        self.tensor: str | None = None
        self.restorer: TensorRestorer | None = None


class _Writer:
    def __init__(self, job: Job, files: Sequence[dict[str, int]]) -> None:
        self._job, self._files = job, files

    def items(self) -> list[tuple[StoredTensor, range]]:
        """Return runs of blocks: single blocks, or a whole tensor whose blocks need order."""
        items: list[tuple[StoredTensor, range]] = []
        for tensor in sorted(self._job.finetuned.tensors.values(), key=lambda t: (t.file, t.begin)):
            starts = range(0, tensor.elements, WRITE_BLOCK)
            restorer = self._job.restorers(tensor.name)
            if restorer is not None and restorer.in_order:
                items.append((tensor, starts))
            else:
                items += [(tensor, range(start, start + 1)) for start in starts]
        return items

    def write(self, worker: _Worker, _: int, item: tuple[StoredTensor, range]) -> None:
        """Write a run of blocks of one tensor into every checkpoint."""
        tensor, starts = item
        if worker.tensor != tensor.name:
            worker.tensor, worker.restorer = tensor.name, self._job.restorers(tensor.name)
        for start in starts:
            count = min(WRITE_BLOCK, tensor.elements - start)
            if worker.restorer is None:
                self._copy(worker, tensor, start, count)
            else:
                self._restore(worker, tensor, worker.restorer, start, count)

    def _copy(self, worker: _Worker, tensor: StoredTensor, start: int, count: int) -> None:
        bits = SAFETENSORS_BITS[tensor.dtype]
        first, last = start * bits // 8, -(-(start + count) * bits // 8)
        block = worker.finetuned[: last - first]
        self._job.finetuned.read(tensor.name, first, block)
        for files in self._files:
            _write_all(files[tensor.file], block, tensor.begin + first)

    def _restore(
        self,
        worker: _Worker,
        tensor: StoredTensor,
        restorer: TensorRestorer,
        start: int,
        count: int,
    ) -> None:
        held = HELD_AS[tensor.dtype]
        other = self._job.base.tensors[self._job.base_name(tensor.name)]
        p = self._read(self._job.base, worker.base, other, start, count)
        s = self._read(self._job.finetuned, worker.finetuned, tensor, start, count)
        out = worker.out[: s.nbytes * len(self._files)]
        restorer.block(p, s, start, out.view(held))
        offset = tensor.begin + start * held.itemsize
        for files, block in zip(self._files, out.reshape(len(self._files), -1), strict=True):
            _write_all(files[tensor.file], block, offset)

    @staticmethod
    def _read(
        model: ModelWeights, buffer: NDArray[np.uint8], tensor: StoredTensor, start: int, count: int
    ) -> Array:
        held = HELD_AS[tensor.dtype]
        count = max(0, min(count, tensor.elements - start))
        block = buffer[: count * held.itemsize]
        if count:
            model.read(tensor.name, start * held.itemsize, block)
        return block.view(held)


def _write_all(handle: int, block: NDArray[np.uint8], offset: int) -> None:
    done = os.pwrite(handle, block.data, offset)
    while done < block.size:
        done += os.pwrite(handle, block[done:].data, offset + done)


def write_weights(
    job: Job, *, threads: int | None = None, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Write the weight files of every folder of the job.

    Args:
        job: what to write.
        threads: how many; one per core if not given. The result does not depend on it.
        progress: called with the number of elements done, from any thread.
    """
    layout = job.finetuned.layout
    with contextlib.ExitStack() as stack:
        files = [
            {
                file: _create(stack, folder / file, (layout.folder / file).stat().st_size)
                for file in layout.files
            }
            for folder in job.folders
        ]
        for file in layout.files:
            begin = min(t.begin for t in layout.tensors.values() if t.file == file)
            header = np.empty(begin, np.uint8)
            layout.read_file(file, 0, header)
            for handles in files:
                _write_all(handles[file], header, 0)
        writer = _Writer(job, files)

        def work(worker: _Worker, index: int, item: tuple[StoredTensor, range]) -> None:
            writer.write(worker, index, item)
            progress(min(len(item[1]) * WRITE_BLOCK, item[0].elements - item[1].start))

        for_each(writer.items(), lambda: _Worker(len(files)), work, threads)
        for handles in files:
            for handle in handles.values():
                os.fsync(handle)


def _create(stack: contextlib.ExitStack, path: Path, size: int) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    stack.callback(os.close, handle)
    if size:
        os.posix_fallocate(handle, 0, size)  # a full disk shows before any work is done
    return handle
