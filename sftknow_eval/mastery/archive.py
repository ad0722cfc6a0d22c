"""Where fact files lie: a folder or a zip, read in place, with `dataset/` somewhere in it."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import get_args

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.facts import Split

_FACT_FILE = re.compile(r"(?P<root>.*?)(?P<split>train|dev|test)/(?P<name>P\d+)\.(?P=split)\.json")


class FactFiles:
    """The files of a data folder or zip; a zip is never unpacked.

    `dataset/` may be the given folder itself, in it, or one level below; relation list, aliases
    and templates lie beside `dataset/` or in it.

    Raises:
        DataError: nothing there, no zip, a truncated zip, or no fact files in it.
    """

    def __init__(self, source: Path) -> None:
        # Given `dataset/` itself, what belongs to it lies one folder up.
        if source.name == "dataset" and any((source / split).is_dir() for split in get_args(Split)):
            source = source.parent
        self.source = source
        self._zip: zipfile.ZipFile | None = None
        if source.is_dir():
            self._names = [p.relative_to(source).as_posix() for p in _files(source)]
        elif source.is_file():
            self._zip = _open_zip(source)
            self._names = self._zip.namelist()
        else:
            raise DataError(
                f"The data {source} does not exist. Give a folder or zip that holds "
                "dataset/{train,dev,test}/P*.json, or leave it out to use EntityQuestions."
            )
        found = [m for name in self._names if (m := _FACT_FILE.fullmatch(name))]
        roots = sorted({m["root"] for m in found}, key=lambda root: (root.count("/"), root))
        if not roots:
            raise DataError(
                f"{source} holds no facts: files like dataset/test/P17.test.json were expected."
            )
        self._root = roots[0]
        self.relations = {
            split: sorted(
                (m["name"] for m in found if (m["root"], m["split"]) == (roots[0], split)),
                key=lambda name: int(name[1:]),
            )
            for split in get_args(Split)
        }

    def rows_file(self, relation: str, split: str) -> bytes:
        """Return the content of a relation's file in a split.

        Raises:
            DataError: there is no such file.
        """
        name = f"{split}/{relation}.{split}.json"
        content = self._read(self._root + name)
        if content is None:
            raise DataError(
                f"{self.source} has no file dataset/{name}, which its relation list asks for. "
                "Add it, or take the relation out of relations.yaml."
            )
        return content

    def beside(self, name: str) -> bytes | None:
        """Return the content of a file that lies in or beside `dataset/`, or None."""
        for folder in self._folders:
            if (content := self._read(folder + name)) is not None:
                return content
        return None

    def path_beside(self, name: str) -> Path | Traversable | None:
        """Return where a file lies in or beside `dataset/`, readable in place, or None."""
        root = self.source if self._zip is None else zipfile.Path(self._zip)
        return next((p for f in self._folders if (p := root.joinpath(f + name)).is_file()), None)

    @property
    def _folders(self) -> tuple[str, ...]:
        parent = self._root[: self._root.rstrip("/").rfind("/") + 1]
        return tuple(dict.fromkeys((parent, self._root)))

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

    def _read(self, name: str) -> bytes | None:
        if self._zip is None:
            path = self.source / name
            return path.read_bytes() if path.is_file() else None
        try:
            return self._zip.read(name)
        except KeyError:
            return None
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(
                f"{self.source} is damaged at {name}: {error}. Get it again."
            ) from error


def _files(folder: Path) -> Iterator[Path]:
    # Three levels hold any layout that is read; a whole home folder is not walked through.
    for pattern in ("*", "*/*", "*/*/*", "*/*/*/*"):
        yield from (p for p in folder.glob(pattern) if p.suffix in (".json", ".yaml"))


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(
            f"{path} is not a whole zip archive ({error}): it may be a broken download. "
            "Delete it and get it again."
        ) from error
