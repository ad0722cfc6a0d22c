"""Write restored checkpoints: all of a sweep in one read of the pair.

Each file of the fine-tune is copied in layout, its header byte for byte, and its tensors are
written at the same offsets. A checkpoint is made in a hidden folder and renamed last.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sftknow_eval.drift.tensors import HELD_AS, Array
from sftknow_eval.drift.threads import cores, for_each
from sftknow_eval.errors import OutOfSpace
from sftknow_eval.models import ADAPTER_CONFIG, SAFETENSORS_BITS
from sftknow_eval.restoration.blocks import TensorRestorer
from sftknow_eval.restoration.checkpoint import INDEX, ModelWeights, StoredTensor
from sftknow_eval.restoration.direct import PAGE, Bytes, OutputFile, page_buffer

# Small enough that the outputs of seven ratios stay near the processor.
WRITE_BYTES = 1 << 19
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ckpt"}
_LEFT_BEHIND = {"README.md", "trainer_state.json", ADAPTER_CONFIG}
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
        # Base values may be twice as wide as the fine-tune's. Blocks begin at a page of the file:
        # into memory a few bytes beyond a page, some processors copy them four times as slowly.
        # In the middle of one, what is read does not contend with what is written, either.
        self.base, self.finetuned = (
            page_buffer(PAGE + size * WRITE_BYTES)[PAGE // 2 :] for size in (2, 1)
        )
        # A block begins where it does in its page of the file, so that it can be written directly.
        row = WRITE_BYTES + PAGE
        self.out_JN = page_buffer(row * outputs).reshape(outputs, row)
        self.tensor: str | None = None
        self.restorer: TensorRestorer | None = None


class _Writer:
    def __init__(self, job: Job, files: Sequence[dict[str, OutputFile]]) -> None:
        self._job, self._files = job, files

    def items(self) -> list[tuple[StoredTensor, Sequence[range]]]:
        """Return runs of blocks: single blocks, or a whole tensor whose blocks need order."""
        items: list[tuple[StoredTensor, Sequence[range]]] = []
        for tensor in sorted(self._job.finetuned.tensors.values(), key=lambda t: (t.file, t.begin)):
            restorer = self._job.restorers(tensor.name)
            if restorer is not None and restorer.in_order:
                items.append((tensor, _blocks(tensor)))
            else:
                items += [(tensor, [block]) for block in _blocks(tensor)]
        return items

    def write(self, worker: _Worker, _: int, item: tuple[StoredTensor, Sequence[range]]) -> None:
        """Write a run of blocks of one tensor into every checkpoint."""
        tensor, blocks = item
        if worker.tensor != tensor.name:
            worker.tensor, worker.restorer = tensor.name, self._job.restorers(tensor.name)
        for block in blocks:
            offset = tensor.begin + block.start
            skip = offset % PAGE if _aligned(tensor) else 0
            rows_JN = worker.out_JN[:, skip : skip + len(block)]
            if worker.restorer is None:
                self._job.finetuned.read(tensor.name, block.start, rows_JN[0])
                rows_JN = np.broadcast_to(rows_JN[0], rows_JN.shape)
            else:
                self._restore(worker, tensor, worker.restorer, block, skip)
            for files, row in zip(self._files, rows_JN, strict=True):
                files[tensor.file].write(row, offset)

    def _restore(
        self,
        worker: _Worker,
        tensor: StoredTensor,
        restorer: TensorRestorer,
        block: range,
        skip: int,
    ) -> None:
        held = HELD_AS[tensor.dtype]
        other = self._job.base.tensors[self._job.base_name(tensor.name)]
        start, count = block.start // held.itemsize, len(block) // held.itemsize
        p = self._read(self._job.base, worker.base, other, start, count)
        s = self._read(self._job.finetuned, worker.finetuned, tensor, start, count)
        restorer.block(p, s, start, worker.out_JN.view(held), skip // held.itemsize)

    @staticmethod
    def _read(
        model: ModelWeights, buffer: Bytes, tensor: StoredTensor, start: int, count: int
    ) -> Array:
        held = HELD_AS[tensor.dtype]
        count = max(0, min(count, tensor.elements - start))
        block = buffer[: count * held.itemsize]
        if count:
            model.read(tensor.name, start * held.itemsize, block)
        return block.view(held)


def _aligned(tensor: StoredTensor) -> bool:
    """Say whether whole pages of the file hold whole elements."""
    return tensor.begin % 8 == 0


def _blocks(tensor: StoredTensor) -> list[range]:
    """Cut a tensor's bytes into blocks that end at whole pages of its file, where they can."""
    first = -tensor.begin % WRITE_BYTES if _aligned(tensor) else 0
    cuts = [0, *range(first or WRITE_BYTES, tensor.nbytes, WRITE_BYTES), tensor.nbytes]
    return [range(a, b) for a, b in itertools.pairwise(cuts) if a < b]


def write_weights(
    job: Job, *, threads: int | None = None, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Write the weight files of every folder of the job.

    Args:
        job: what to write.
        threads: how many; two a core if not given, as direct writes wait for the disk. The
            result does not depend on it.
        progress: called with the number of elements done, from any thread.
    """
    layout = job.finetuned.layout
    with contextlib.ExitStack() as stack:
        files: list[dict[str, OutputFile]] = [{} for _ in job.folders]
        for file in layout.files:
            size = (layout.folder / file).stat().st_size
            begin = min((t.begin for t in layout.tensors.values() if t.file == file), default=size)
            header = np.empty(begin, np.uint8)
            layout.read_file(file, 0, header)
            for folder, there in zip(job.folders, files, strict=True):
                there[file] = OutputFile(folder / file, size)
                stack.callback(there[file].close)
                there[file].write(header, 0)
        writer = _Writer(job, files)

        def work(worker: _Worker, index: int, item: tuple[StoredTensor, Sequence[range]]) -> None:
            writer.write(worker, index, item)
            written = sum(map(len, item[1])) * 8 // SAFETENSORS_BITS[item[0].dtype]
            progress(written)

        for_each(writer.items(), lambda: _Worker(len(files)), work, threads or 2 * cores())
        for there in files:
            for output in there.values():
                output.sync()
