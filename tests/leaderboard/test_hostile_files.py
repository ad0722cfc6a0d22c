"""Hostile files: bombs, links, paths that lead elsewhere. Nothing is unpacked before it is counted.

Limits are those of `parquet_guard.Limits` and of the manifest.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from board_making import OTHER, ROW
from forging import edit, forge_bytes, reasons_for, row_folder, set_in

from sftknow_eval.errors import SubmissionError
from sftknow_eval.leaderboard.evidence import SCHEMA, read_evidence
from sftknow_eval.leaderboard.parquet_guard import Limits, read_table
from sftknow_eval.leaderboard.ranking import board
from sftknow_eval.leaderboard.verify import verify

IDENTITY = {b"sftknow": json.dumps({"format": "sftknow-evidence/1"}).encode()}


def parquet(table: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **({"compression": "zstd"} | options))
    return buffer.getvalue()


def evidence_table(n: int, output: str = "text") -> Any:
    columns = [
        pa.array([f"P19-test-{i:04}" for i in range(n)]),
        pa.array([output] * n),
        pa.array([b"12345678"] * n, pa.binary(8)),
        pa.array([True] * n),
        pa.array([None] * n, pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(IDENTITY))


def test_a_giant_manifest_is_not_read(board_copy: Path) -> None:
    edit(row_folder(board_copy), lambda m: m.update(summary="a" * (2 << 20)))

    assert "at most 1,048,576 are read" in reasons_for(board_copy)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 50_000, "[" * 30 + "]" * 30])
def test_a_nested_manifest_is_not_parsed(board_copy: Path, content: str) -> None:
    (row_folder(board_copy) / "manifest.json").write_text(content)

    assert "levels deep" in reasons_for(board_copy)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"a": 1, "a": 2}',
        b"1" * 9999,
    ],
)
def test_what_is_no_manifest_is_refused(board_copy: Path, content: bytes) -> None:
    (row_folder(board_copy) / "manifest.json").write_bytes(content)

    assert "manifest.json" in reasons_for(board_copy)


def test_a_key_twice_is_refused(board_copy: Path) -> None:
    path = row_folder(board_copy) / "manifest.json"
    path.write_text('{"title": "seen", ' + path.read_text().lstrip("{ \n"))

    assert "'title' stands twice" in reasons_for(board_copy)


def test_a_missing_manifest_is_refused(board_copy: Path) -> None:
    (row_folder(board_copy) / "manifest.json").unlink()

    assert "manifest.json" in reasons_for(board_copy)


def test_a_zip_is_no_evidence(board_copy: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * (50 << 20))
    forge_bytes(row_folder(board_copy), buffer.getvalue())

    assert "is not a Parquet file" in reasons_for(board_copy)


def test_a_zip_beside_the_evidence_is_refused(board_copy: Path) -> None:
    (row_folder(board_copy) / "data.zip").write_bytes(b"PK")

    assert "files that the manifest does not name: 'data.zip'" in reasons_for(board_copy)


BOMB = 1 << 29


def bombs() -> dict[str, bytes]:
    """Small files that would become large."""
    long_text = evidence_table(1, "a" * BOMB)
    one_text = evidence_table(100_000, "a" * 100_000)
    return {
        "a long text": parquet(long_text),
        "one text many times": parquet(one_text),
        "many rows": parquet(evidence_table(300_000)),
        "many row groups": parquet(evidence_table(300), row_group_size=1),
    }


@pytest.fixture(scope="module")
def made_bombs() -> dict[str, bytes]:
    return bombs()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a long text", "It was not unpacked"),
        ("one text many times", "a text in 'output' has 100,000 bytes"),
        ("many rows", "300,000 rows; at most 200,000"),
        ("many row groups", "row groups; at most 64"),
    ],
)
def test_parquet_bombs_are_refused_in_little_memory(
    board_copy: Path, made_bombs: dict[str, bytes], name: str, why: str
) -> None:
    assert len(made_bombs[name]) < 3 << 20
    forge_bytes(row_folder(board_copy), made_bombs[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert why in reasons_for(board_copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_sizes_are_read_from_the_pages_and_not_from_the_footer_alone() -> None:
    """A page header that claims 2 GB, in a file whose footer claims little."""
    content = bytearray(parquet(evidence_table(50), use_dictionary=False))
    chunk = pq.read_metadata(io.BytesIO(bytes(content))).row_group(0).column(1)
    place = chunk.data_page_offset
    assert content[place : place + 3] == b"\x15\x00\x15"  # type DATA_PAGE, then the unpacked size
    at = place + 3
    length = next(i for i in range(5) if content[at + i] < 0x80) + 1
    huge = b"\xfe\xff\xff\xff\x0f"  # zigzag of 2**31 - 1
    forged = bytes(content[:at]) + huge + bytes(content[at + length :])

    with pytest.raises(SubmissionError, match=r"unpacks to more than|impossible size|cut off"):
        read_table(forged, SCHEMA, Limits(), "forged")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1", "claims a footer"),
        (b"PAR1" + b"\x15" * 100 + b"\x40\0\0\0PAR1", "is not readable as Parquet"),
        (b"PAR1PAR1", "is not a Parquet file"),
        (b"", "is not a Parquet file"),
    ],
)
def test_broken_parquet_is_refused(board_copy: Path, content: bytes, why: str) -> None:
    forge_bytes(row_folder(board_copy), content)

    assert why in reasons_for(board_copy)


def strange_tables() -> dict[str, Any]:
    good = evidence_table(3)
    nested = pa.array([[["a"]]] * 3)
    return {
        "a nested column": good.set_column(1, "output", nested),
        "an extra column": good.append_column("code", pa.array(["import os"] * 3)),
        "a missing column": good.remove_column(4),
        "another type": good.set_column(3, "correct", pa.array([1, 0, 1])),
        "nulls": good.set_column(1, pa.field("output", pa.string()), pa.array(["a", None, "b"])),
        "an extension type": good.set_column(
            2, "prompt_digest", pa.array(["{}"] * 3, pa.string()).cast(pa.json_())
        ),
    }


@pytest.mark.parametrize("name", list(strange_tables()))
def test_evidence_has_the_columns_it_should(board_copy: Path, name: str) -> None:
    forge_bytes(row_folder(board_copy), parquet(strange_tables()[name]))

    assert "expected" in reasons_for(board_copy) or "columns" in reasons_for(board_copy)


@pytest.mark.parametrize("codec", ["gzip", "brotli", "lz4"])
def test_other_compressions_are_refused(board_copy: Path, codec: str) -> None:
    forge_bytes(row_folder(board_copy), parquet(evidence_table(100), compression=codec))

    assert "is compressed by" in reasons_for(board_copy)


def test_text_that_is_not_unicode_is_refused(board_copy: Path) -> None:
    raw = pa.array([b"\xff\xfe bad"] * 3, pa.binary()).view(pa.string())
    table = evidence_table(3)
    table = table.set_column(1, pa.field("output", pa.string(), nullable=False), raw)
    forge_bytes(row_folder(board_copy), parquet(table))

    assert "is not readable as Parquet" in reasons_for(board_copy)


@pytest.mark.parametrize("place", ["manifest.json", "evidence/seed-0.parquet", "evidence", "."])
def test_links_are_not_followed(board_copy: Path, tmp_path: Path, place: str) -> None:
    path = row_folder(board_copy) / place
    elsewhere = tmp_path / "elsewhere"
    path = path.resolve()
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)

    assert "link" in reasons_for(board_copy)


def test_a_link_to_a_secret_is_not_read(board_copy: Path) -> None:
    path = row_folder(board_copy) / "recipes"
    path.symlink_to("/etc")

    reasons = reasons_for(board_copy)

    assert "is a link" in reasons
    assert "root:" not in reasons


def test_a_pipe_is_not_waited_for(board_copy: Path) -> None:
    path = row_folder(board_copy) / "evidence/seed-0.parquet"
    path.unlink()
    os.mkfifo(path)

    assert "no ordinary file" in reasons_for(board_copy)


@pytest.mark.parametrize("depth", ["1/the-base/deeper/and/deeper", "shallow"])
def test_a_row_in_another_place_is_refused(board_copy: Path, depth: str) -> None:
    folder = board_copy / "submissions" / depth
    shutil.copytree(row_folder(board_copy), folder)

    verdicts = {verdict.path: verdict for verdict in verify(board_copy)}

    assert "and lies at" in "; ".join(verdicts[depth].reasons)
    assert verdicts[ROW].status == "recomputed"


def test_a_row_that_says_it_is_another_is_refused(board_copy: Path) -> None:
    set_in(row_folder(board_copy), "run", "better")

    assert f"is that of the row '{OTHER}'" in reasons_for(board_copy)


@pytest.mark.parametrize("name", [".hidden", "extra.py", "evidence/__init__.py"])
def test_files_that_nobody_named_are_refused(board_copy: Path, name: str) -> None:
    (row_folder(board_copy) / name).write_text("import os")

    assert "files that the manifest does not name" in reasons_for(board_copy)


def test_thousands_of_files_are_refused(board_copy: Path) -> None:
    for number in range(600):
        (row_folder(board_copy) / f"{number}").touch()

    assert "more than 512 files" in reasons_for(board_copy)


def test_a_huge_file_is_refused_by_its_size_alone(board_copy: Path) -> None:
    with (row_folder(board_copy) / "evidence/seed-0.parquet").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: takes no room

    assert "bytes; at most" in reasons_for(board_copy)


def test_a_manifest_of_very_many_seeds_is_refused(board_copy: Path) -> None:
    edit(row_folder(board_copy), lambda m: m.update(seeds=m["seeds"] * 20))

    assert "at most 32" in reasons_for(board_copy)


@pytest.mark.parametrize(
    "content", [b'{"a": ' + b'"x' * 40_000 + b"\n", b"[1]\n", b"{\n", b"\xff\n"]
)
def test_training_data_is_json_lines(board_copy: Path, content: bytes) -> None:
    from sftknow_eval.leaderboard.contained import sha256

    folder = row_folder(board_copy)
    (folder / "training/seed-0.jsonl").write_bytes(content)
    set_in(folder, "seeds.0.training.sha256", sha256(content))

    assert "training/seed-0.jsonl" in reasons_for(board_copy)


def test_a_changed_mastery_table_refuses_all_rows_of_the_base_and_says_why(
    board_copy: Path,
) -> None:
    path = board_copy / "mastery/the-base/mastery.parquet"
    table = pq.read_table(path)
    shifted = table.set_column(8, table.schema.field(8), pa.array([4] * len(table), pa.int8()))
    pq.write_table(shifted.replace_schema_metadata(table.schema.metadata), path)

    verdicts = verify(board_copy)

    assert all("The file was changed" in "; ".join(v.reasons) for v in verdicts)


def test_a_board_builds_without_its_hostile_rows(
    board_copy: Path, made_bombs: dict[str, bytes]
) -> None:
    """Many of them at once, beside rows that nothing is wrong with."""
    top = board_copy / "submissions/1/the-base"
    for number, bomb in enumerate(made_bombs.values()):
        folder = top / "sft_divided" / f"bomb-{number + 2}"
        shutil.copytree(row_folder(board_copy), folder)
        set_in(folder, "run", folder.name)
        forge_bytes(folder, bomb)
    (top / "sft_divided" / "empty").mkdir()
    (top / "evil").symlink_to("/")
    nested = top / "sft_divided" / "nested" / "manifest.json"
    nested.parent.mkdir()
    nested.write_text("[" * 100_000)

    found = board(board_copy)

    assert len(found.refused) == len(made_bombs) + 3
    assert ROW in found.rows()
    assert OTHER in found.rows()


def test_evidence_is_read_as_it_was_written(honest_board: Path) -> None:
    evidence = read_evidence(row_folder(honest_board), 0)

    assert (
        evidence.outputs_digest()
        == json.loads((row_folder(honest_board) / "manifest.json").read_text())["seeds"][0][
            "outputs"
        ]
    )
