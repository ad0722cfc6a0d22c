"""Folders and zips read in place: where the files are found, and what damage is called."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles
from sftknow_eval.mastery.dataset import open_dataset


def zipped(
    folder: Path, target: Path, prefix: str = "", method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


LAYOUTS = ["inside", "itself", "itself-renamed", "below", "zip", "zip-below", "zip-bare"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_files(small_data: Path, tmp_path: Path, layout: str) -> None:
    beside = True
    match layout:
        case "inside":
            source = small_data
        case "itself":
            source = small_data / "dataset"
        case "itself-renamed":  # what belongs to it is not beside it then
            source = shutil.copytree(small_data / "dataset", tmp_path / "facts")
            beside = False
        case "below":
            shutil.copytree(small_data, tmp_path / "wrapped" / "archive-1")
            source = tmp_path / "wrapped"
        case "zip":
            source = zipped(small_data, tmp_path / "small.zip")
        case "zip-below":  # as GitHub archives a commit
            source = zipped(small_data, tmp_path / "small.zip", "EntityQuestions-096c261/")
        case "zip-bare":
            source = zipped(small_data / "dataset", tmp_path / "small.zip")
            beside = False
    files, expected = FactFiles(source), FactFiles(small_data)
    assert files.relations == expected.relations
    assert files.relations["dev"] == ["P19", "P20", "P106"]
    assert files.rows_file("P19", "dev") == expected.rows_file("P19", "dev")
    assert files.digest() == expected.digest()
    for name in ("relations.yaml", "aliases.json", "templates.yaml"):
        assert files.beside(name) == ((small_data / name).read_bytes() if beside else None)
        path = files.path_beside(name)
        assert (path.read_bytes() if path else None) == files.beside(name)
    assert files.beside("nothing.yaml") is None
    assert files.path_beside("nothing.yaml") is None


def test_the_working_folder_may_be_dataset_itself(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_data / "dataset")
    assert FactFiles(Path()).beside("relations.yaml") is not None


def test_the_digest_is_that_of_the_protocol(small_data: Path) -> None:
    # "SHA-256 over the lines `NAME SHA256(FILE)\n`, names sorted, as in dataset/dev/P106.dev.json".
    lines = ""
    for path in sorted((small_data / "dataset").rglob("*.json")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines += f"{path.relative_to(small_data).as_posix()} {digest}\n"
    assert FactFiles(small_data).digest() == hashlib.sha256(lines.encode()).hexdigest()


def test_a_zip_is_not_unpacked(small_data: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    open_dataset(zipped(small_data, alone / "small.zip")).counts()
    assert [path.name for path in alone.iterdir()] == ["small.zip"]


def test_one_split_is_read_alone(small_data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    for split in ("train", "dev"):
        (source / "dataset" / split / f"P19.{split}.json").write_text("?")
    assert len(open_dataset(source).facts("test", "id")) == 10


def test_other_files_are_not_taken_for_facts(small_data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    # As in the repository of EntityQuestions and in archives made on a Mac.
    for name in (
        "dataset/one-off/no-overlap/P159/P159_no_overlap.dev.json",
        "dataset/dev/P17.dev.jsonl",
        "dataset/dev/P17.test.json",
        "dataset/dev/._P17.dev.json",
        "one/two/three/dev/P17.dev.json",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("[]")
    for place in (source, zipped(source, tmp_path / "data.zip")):
        assert FactFiles(place).relations == FactFiles(small_data).relations


def test_dataset_comes_before_other_names(small_data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    shutil.copytree(source / "dataset", source / "backup")
    (source / "backup" / "test" / "P19.test.json").write_text("[]")
    for place in (source, zipped(source, tmp_path / "data.zip")):
        assert len(open_dataset(place).facts("test", "id")) == 10


def test_several_sets_are_not_chosen_from(small_data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(small_data, tmp_path / "data" / name)
    for place in (tmp_path / "data", zipped(tmp_path / "data", tmp_path / "data.zip")):
        with pytest.raises(DataError, match="several sets of facts: one/dataset/, two/dataset/"):
            FactFiles(place)


def test_a_folder_that_holds_the_archive_says_which_to_name(tmp_path: Path) -> None:
    (tmp_path / "dataset.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no facts.*dataset\.zip: name that file"):
        FactFiles(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_zip_is_named(small_data: Path, tmp_path: Path, share: float) -> None:
    whole = zipped(small_data, tmp_path / "whole.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"cut\.zip is not a whole zip archive"):
        open_dataset(cut)


def test_what_is_no_zip_and_a_zip_without_facts_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("dataset/test/P17.test.json")
    with pytest.raises(DataError, match=r"text\.zip is not a whole zip archive"):
        FactFiles(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("dataset/readme.txt", "nothing")
    with pytest.raises(DataError, match=r"other\.zip holds no facts"):
        FactFiles(tmp_path / "other.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_flipped_bytes_are_damage_or_unseen(small_data: Path, tmp_path: Path, method: int) -> None:
    # Whatever zipfile makes of a damaged archive, a user meets a DataError that names it.
    whole = zipped(small_data, tmp_path / "whole.zip", method=method).read_bytes()
    expected = open_dataset(small_data).probe_facts()
    damaged = tmp_path / "damaged.zip"
    chance, named = random.Random(method), 0
    unnamed = 0
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(content)
        try:
            dataset = open_dataset(damaged)
            facts = dataset.probe_facts()
        except DataError as error:
            named += "damaged.zip" in str(error)
            unnamed += "damaged.zip" not in str(error)
        else:
            # Flips in time stamps and other fields that nobody reads; or in the name of
            # relations.yaml or aliases.json, which is then an absent file.
            assert facts == expected or not dataset.origins["aliases"].endswith(".zip/aliases.json")
    assert unnamed == 0
    assert named > 50


def test_a_damaged_template_file_is_named_when_the_data_is_opened(
    small_data: Path, tmp_path: Path
) -> None:
    damaged = zipped(small_data, tmp_path / "damaged.zip", method=zipfile.ZIP_STORED)
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace(b"was born in'", b"was torn in'"))
    with pytest.raises(DataError, match=r"damaged\.zip cannot be read at templates\.yaml"):
        open_dataset(damaged)


def test_all_missing_files_are_named(small_data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small_data, tmp_path / "data")
    for relation in ("P19", "P106"):
        (source / "dataset" / "test" / f"{relation}.test.json").unlink()
    with pytest.raises(DataError, match=r"P19\.test\.json, P106\.test\.json in dataset/test/"):
        open_dataset(source).facts("test")
    shutil.rmtree(source / "dataset" / "dev")
    with pytest.raises(DataError, match="the split dev is missing"):
        open_dataset(source).facts("dev")
    assert len(open_dataset(source).facts("train")) == 15


def test_a_file_that_cannot_be_read_is_named(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    files = FactFiles(small_data)
    monkeypatch.setattr(Path, "read_bytes", fail)  # a failing disk cannot be had otherwise
    with pytest.raises(DataError, match=r"P19\.test\.json: .*Input/output error"):
        files.rows_file("P19", "test")
