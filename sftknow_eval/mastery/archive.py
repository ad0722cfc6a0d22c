"""Where fact files lie: a folder or a zip, read in place, with `dataset/` somewhere in it."""

from __future__ import annotations

import hashlib
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import get_args

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.facts import Split

# `dataset/` at the top or one level below, or what is in it without the folder itself.
_FACT_FILE = re.compile(
    r"(?P<root>(?:[^/]+/)?(?:dataset/)?)(?P<split>train|dev|test)/(?P<name>P\d+)\.(?P=split)\.json"
)
# All that zipfile lets through of an archive that is damaged, encrypted or packed unusually.
_UNREADABLE = (
    *(zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError),
    *(zlib.error, lzma.LZMAError),
)


class FactFiles:
    """The files of a data folder or zip; a zip is never unpacked.

    `dataset/` may be the given folder itself, in it, or one level below; relation list, aliases
    and templates lie beside `dataset/` or in it.

    Attributes:
        source: the folder or zip.
        relations: the relations of each split that have a file, by number.

    Raises:
        DataError: nothing there, no zip, a truncated zip, no fact files in it, or several sets.
    """

    def __init__(self, source: Path) -> None:
        self.source = _whole(source)
        self._zip: zipfile.ZipFile | None = None
        if self.source.is_dir():
            names = list(_fact_files(self.source))
        elif self.source.is_file():
            self._zip = _open_zip(self.source)
            names = self._zip.namelist()
        else:
            raise DataError(
                f"The data {source} does not exist. Give a folder or zip that holds "
                "dataset/{train,dev,test}/P*.json, or leave it out to use EntityQuestions."
            )
        # A name can come twice: matched by two patterns, or stored twice in a zip.
        found = [m for name in dict.fromkeys(names) if (m := _FACT_FILE.fullmatch(name))]
        self._root = self._only_root({match["root"] for match in found})
        self.relations = {
            split: sorted(
                (m["name"] for m in found if (m["root"], m["split"]) == (self._root, split)),
                key=lambda name: int(name[1:]),
            )
            for split in get_args(Split)
        }

    @property
    def name(self) -> str:
        """The folder's name, or the archive's without its ending."""
        path = self.source.resolve()
        return path.name if self._zip is None else path.stem

    def require(self, split: Split, relations: Collection[str]) -> None:
        """Check that every one of the relations has a file in a split.

        Raises:
            DataError: files are missing; all of them are named.
        """
        there = self.relations[split]
        missing = [f"{name}.{split}.json" for name in relations if name not in there]
        if missing and not there:
            raise DataError(
                f"{self.source} has no files dataset/{split}/P*.{split}.json: the split {split} "
                "is missing. Add it, or use the other splits only."
            )
        if missing:
            raise DataError(
                f"{self.source} has no file {', '.join(missing)} in dataset/{split}/, which its "
                "relation list asks for. Add it, or take the relation out of relations.yaml."
            )

    def rows_file(self, relation: str, split: str) -> bytes:
        """Return the content of a relation's file in a split.

        Raises:
            DataError: it is not there or cannot be read.
        """
        name = f"{self._root}{split}/{relation}.{split}.json"
        if (content := self._read(name)) is None:
            raise DataError(f"{self.source} has no file {name}.")
        return content

    def beside(self, name: str) -> bytes | None:
        """Return the content of a file that lies in or beside `dataset/`, or None.

        Raises:
            DataError: it is there and cannot be read.
        """
        contents = (self._read(folder + name) for folder in self._folders)
        return next((content for content in contents if content is not None), None)

    def path_beside(self, name: str) -> Path | Traversable | None:
        """Return where a file lies in or beside `dataset/`, readable in place, or None.

        Raises:
            DataError: it is there and cannot be read.
        """
        if self.beside(name) is None:  # a damaged member shows here, not when it is used
            return None
        root = self.source if self._zip is None else zipfile.Path(self._zip)
        return next(p for f in self._folders if (p := root.joinpath(f + name)).is_file())

    def digest(self) -> str:
        """Return the content digest of the fact files: SHA-256 over `NAME SHA256(FILE)` lines.

        It does not depend on how the files are archived.
        """
        lines = [
            f"dataset/{split}/{name}.{split}.json "
            f"{hashlib.sha256(self.rows_file(name, split)).hexdigest()}\n"
            for split, names in self.relations.items()
            for name in names
        ]
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    @property
    def _folders(self) -> tuple[str, ...]:
        parent = self._root[: self._root.rstrip("/").rfind("/") + 1]
        return tuple(dict.fromkeys((parent, self._root)))

    def _only_root(self, roots: Collection[str]) -> str:
        """Return where `train`, `dev` and `test` lie: what is called `dataset` first, then high."""

        def rank(root: str) -> tuple[int, bool]:
            return root.count("/") - root.endswith("dataset/"), not root.endswith("dataset/")

        first = sorted(root for root in roots if rank(root) == min(map(rank, roots)))
        if len(first) > 1:
            raise DataError(
                f"{self.source} holds several sets of facts: {', '.join(first)}. Name one of them."
            )
        if first:
            return first[0]
        zips = sorted(path.name for path in self.source.glob("*.zip"))
        hint = f" It holds {', '.join(zips)}: name that file." if zips else ""
        raise DataError(
            f"{self.source} holds no facts: files like dataset/test/P17.test.json were "
            f"expected.{hint}"
        )

    def _read(self, name: str) -> bytes | None:
        try:
            if self._zip is not None:
                return self._zip.read(name)
            path = self.source / name
            return path.read_bytes() if path.is_file() else None
        except KeyError:
            return None
        except _UNREADABLE as error:
            raise DataError(
                f"{self.source} cannot be read at {name}: {error}. It may be damaged: get it again."
            ) from error


def _whole(source: Path) -> Path:
    """Return the folder up from a given `dataset/`: what belongs to the data lies there."""
    path = source.resolve()  # a plain `.` has no name
    inside = path.name == "dataset" and any((path / split).is_dir() for split in get_args(Split))
    return path.parent if inside else source


def _fact_files(folder: Path) -> Iterator[str]:
    """Yield the files where facts may lie; the rest of a large folder is not walked through."""
    for below in ("", "*/"):
        for split in get_args(Split):
            for pattern in (f"{below}{split}/P*.json", f"{below}dataset/{split}/P*.json"):
                yield from (path.relative_to(folder).as_posix() for path in folder.glob(pattern))


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is not a whole zip archive ({error}). If it was downloaded, get it again; "
            "else name a folder or zip that holds dataset/{train,dev,test}/P*.json."
        ) from error
