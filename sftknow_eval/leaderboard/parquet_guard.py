"""Parquet from strangers: everything that would be decompressed is counted first.

The footer may lie about sizes, so the header of every page is read too: they say how much each
page becomes, and Arrow believes them. Text columns are read as dictionaries, so that one long
text that is named by many rows is not multiplied.

Source: parquet-format, `parquet.thrift` (PageHeader) and the Thrift compact protocol.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sftknow_eval.errors import SubmissionError

_MAGIC = b"PAR1"
_TAIL = 8
_CODECS = ("ZSTD", "SNAPPY", "UNCOMPRESSED")
_STRUCT, _I32, _BOOLS = 12, 5, (1, 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may hold.

    Attributes:
        bytes: of the file.
        footer: bytes of its footer.
        rows: in all.
        unpacked: bytes of all pages once decompressed.
        text: bytes of any one text.
    """

    bytes: int = 64 << 20
    footer: int = 256 << 10
    rows: int = 200_000
    unpacked: int = 256 << 20
    text: int = 8_192
    row_groups: int = 64
    pages: int = 4_096


def read_table(content: bytes, schema: Any, limits: Limits, name: str) -> Any:
    """Return the table in a Parquet file, after everything about it was checked.

    Args:
        content: of the file.
        schema: the columns it must have, in this order, of these types and nullability.
        limits: how much it may hold.
        name: what errors call it.

    Raises:
        SubmissionError: it is no Parquet file, has other columns, or unpacks to too much.
    """
    metadata = check_parquet(content, limits, name)
    try:
        _check_columns(metadata, schema, name)
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        # Not read_table, which imports pandas and pyarrow.dataset: a second at the first call.
        file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts, pre_buffer=False)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except SubmissionError:
        raise
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise SubmissionError(f"{name} is not readable as Parquet: {_first(error)}") from error
    return _with_plain_texts(table, texts, limits, name)


def check_parquet(content: bytes, limits: Limits, name: str) -> Any:
    """Return the metadata of a Parquet file that holds no more than agreed; reads no values.

    Raises:
        SubmissionError: it is no Parquet file, or unpacks to too much.
    """
    _check_frame(content, limits, name)
    try:
        metadata = pq.read_metadata(io.BytesIO(content))
        _check_counts(metadata, limits, name)
        _check_pages(content, metadata, limits, name)
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise SubmissionError(f"{name} is not readable as Parquet: {_first(error)}") from error
    return metadata


def _check_frame(content: bytes, limits: Limits, name: str) -> None:
    if len(content) > limits.bytes:
        raise SubmissionError(f"{name} has {len(content):,} bytes; at most {limits.bytes:,}.")
    if len(content) < 12 or content[:4] != _MAGIC or content[-4:] != _MAGIC:
        raise SubmissionError(f"{name} is not a Parquet file.")
    footer = int.from_bytes(content[-_TAIL:-4], "little")
    if not 0 < footer <= min(limits.footer, len(content) - 12):
        raise SubmissionError(
            f"{name} claims a footer of {footer:,} bytes; at most {limits.footer:,} are read."
        )


def _check_counts(metadata: Any, limits: Limits, name: str) -> None:
    if metadata.num_rows > limits.rows or metadata.num_rows < 0:
        raise SubmissionError(f"{name} has {metadata.num_rows:,} rows; at most {limits.rows:,}.")
    if metadata.num_row_groups > limits.row_groups:
        raise SubmissionError(
            f"{name} has {metadata.num_row_groups:,} row groups; at most {limits.row_groups}."
        )


def _check_columns(metadata: Any, schema: Any, name: str) -> None:
    if metadata.num_columns > len(schema) + 1:
        raise SubmissionError(f"{name} has {metadata.num_columns:,} columns; see {schema.names}.")
    found = metadata.schema.to_arrow_schema()
    if found.names != schema.names:
        raise SubmissionError(
            f"{name} has the columns {found.names[:20]}; {schema.names} were expected."
        )
    for given, wanted in zip(found, schema, strict=True):
        if given.type != wanted.type or given.nullable != wanted.nullable:
            raise SubmissionError(
                f"{name}: column '{wanted.name}' is {_kind(given)}; {_kind(wanted)} was expected."
            )


def _kind(field: Any) -> str:
    return f"{str(field.type)[:60]}{'' if field.nullable else ' without nulls'}"


def _check_pages(content: bytes, metadata: Any, limits: Limits, name: str) -> None:
    unpacked = pages = rows = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.compression not in _CODECS:
                raise SubmissionError(
                    f"{name} is compressed by {chunk.compression}; {', '.join(_CODECS)} are read."
                )
            for size in _page_sizes(content, chunk, name):
                unpacked, pages = unpacked + size, pages + 1
                if unpacked > limits.unpacked or pages > limits.pages:
                    raise SubmissionError(
                        f"{name} unpacks to more than {limits.unpacked:,} bytes or "
                        f"{limits.pages:,} pages. It was not unpacked."
                    )
    if rows != metadata.num_rows:
        raise SubmissionError(f"{name} says two numbers of rows: {metadata.num_rows:,}, {rows:,}.")


def _page_sizes(content: bytes, chunk: Any, name: str) -> Iterator[int]:
    """Yield the unpacked size of every page of a column chunk, as its header states it."""
    starts = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        starts.append(chunk.dictionary_page_offset)
    place = min(starts)
    end = place + chunk.total_compressed_size
    if not 4 <= place <= end <= len(content):
        raise SubmissionError(f"{name}: a column lies outside the file.")
    while place < end:
        reader = _Thrift(content, place, end)
        unpacked, packed = reader.page_header()
        if unpacked < 0 or packed < 0 or reader.place + packed > end:
            raise SubmissionError(f"{name}: a page has an impossible size.")
        yield max(unpacked, packed)
        place = reader.place + packed


class _Thrift:
    """As much of the Thrift compact protocol as a page header needs."""

    def __init__(self, content: bytes, place: int, end: int) -> None:
        self.content, self.place, self.end = content, place, end

    def page_header(self) -> tuple[int, int]:
        """Return the unpacked and the packed size, and go past the header."""
        sizes = dict(self._fields(0))
        return sizes.get(2, -1), sizes.get(3, -1)

    def _fields(self, depth: int) -> Sequence[tuple[int, int]]:
        if depth > 4:
            raise ValueError("a page header is nested too deep")
        found, field = [], 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 0x0F
            if kind == _I32:
                found.append((field, self._zigzag()))
            else:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _BOOLS:
            return
        if kind == 3:
            self.place += 1
        elif kind in (4, 6):
            self._varint()
        elif kind == 7:
            self.place += 8
        elif kind == 8:
            length = self._varint()  # reading it moves the place
            self.place += length
        elif kind == _STRUCT:
            self._fields(depth + 1)
        else:
            raise ValueError(f"a page header holds the unknown kind {kind}")

    def _byte(self) -> int:
        if not 0 <= self.place < self.end:
            raise ValueError("a page header is cut off")
        self.place += 1
        return self.content[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("a number in a page header is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _with_plain_texts(table: Any, texts: Sequence[str], limits: Limits, name: str) -> Any:
    for text in texts:
        column = table.column(text)
        for chunk in column.chunks:
            values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
            longest = pc.max(pc.binary_length(values)).as_py() or 0
            if longest > limits.text:
                raise SubmissionError(
                    f"{name}: a text in '{text}' has {longest:,} bytes; at most {limits.text:,}."
                )
        place = table.schema.get_field_index(text)
        table = table.set_column(place, pa.field(text, pa.string()), column.cast(pa.string()))
    return table


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
