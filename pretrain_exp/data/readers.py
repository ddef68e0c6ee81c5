"""Readers: files of texts, one document at a time, whatever their format.

In: JSON Lines, Parquet or plain text; all but Parquet also compressed as .gz or .zst. Out: `Document`s and, for
records that are no document, `Bad` with the reason; nothing is left out in silence. What cannot be read at all (a
broken line, a cut-off file) is a UserError that names the file and the line.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pretrain_exp.errors import UserError

FORMATS = (".jsonl", ".json", ".ndjson", ".parquet", ".txt", ".text", ".md")  # all but Parquet also with .gz or .zst
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Document:
    """record: its number in its file, from 0: line of JSON Lines, row of Parquet, paragraph of plain text."""

    text: str
    domain: str
    record: int


@dataclass(frozen=True)
class Bad:
    """A record that is no document, and why."""

    record: int
    reason: str


@dataclass(frozen=True)
class TextReader:
    """How to read documents: which field holds the text, which the domain, and what a document is in plain text.

    Without a `domain_key` a document's domain is the name of its file (of its folder, for plain text read a file at a
    time).
    """

    text_key: str = "text"
    domain_key: str | None = None
    split: str = "file"  # plain text: "file" or "paragraph" (separated by blank lines)

    def read(self, path: str, advance: Advance) -> Iterator[Document | Bad]:
        """The documents of one file, in order; `advance(n)` is called with the bytes of the file as they are read."""
        suffix = format_of(path)
        if suffix == ".parquet":
            yield from self._parquet(path, advance)
            return
        domain = os.path.basename(path).split(".")[0]
        try:
            with opened(path, advance) as file:
                if suffix in (".txt", ".text", ".md"):
                    yield from self._plain(path, file, domain)
                else:
                    yield from self._json_lines(path, file, domain)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path} is damaged or cut off: {error}", fix="fetch or write this file again") from error

    def _json_lines(self, path: str, file: BinaryIO, domain: str) -> Iterator[Document | Bad]:
        record = -1
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            record += 1
            try:
                values = json.loads(line)
            except ValueError as error:  # of the JSON, or of its encoding
                raise UserError(
                    f"{path}, line {number}: not valid JSON ({error})", fix="mend or delete this line"
                ) from error
            if not isinstance(values, dict):
                yield Bad(record, f"a {type(values).__name__}, not an object with the key {self.text_key!r}")
                continue
            yield self._checked(values, record, domain)

    def _parquet(self, path: str, advance: Advance) -> Iterator[Document | Bad]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        domain = os.path.basename(path).split(".")[0]
        columns = [self.text_key] + ([self.domain_key] if self.domain_key else [])
        try:
            yield from self._rows(path, pq.ParquetFile(path), columns, domain, advance)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is no Parquet file, or damaged: {error}", fix="write this file again") from error

    def _rows(
        self, path: str, table: Any, columns: list[str], domain: str, advance: Advance
    ) -> Iterator[Document | Bad]:
        missing = [column for column in columns if column not in table.schema_arrow.names]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}", fix=f"its columns: {', '.join(table.schema_arrow.names)}"
            )
        record = -1
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            for values in batch.to_pylist():
                record += 1
                yield self._checked(values, record, domain)
            advance(os.path.getsize(path) * batch.num_rows // max(1, table.metadata.num_rows))

    def _plain(self, path: str, file: BinaryIO, domain: str) -> Iterator[Document | Bad]:
        if self.split == "file":
            folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
            try:
                yield self._checked({self.text_key: file.read().decode("utf-8")}, 0, folder, own_domain=False)
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8 ({error})", fix="convert this file to UTF-8") from error
            return
        record, lines = 0, []
        for number, line in enumerate(file, start=1):
            try:
                lines.append(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: not UTF-8 ({error})", fix="convert this file to UTF-8"
                ) from error
            if lines[-1].isspace():
                if len(lines) > 1:
                    yield Document("".join(lines[:-1]).rstrip("\r\n"), domain, record)
                    record += 1
                lines = []
        if lines:
            yield Document("".join(lines).rstrip("\r\n"), domain, record)

    def _checked(self, values: dict[str, Any], record: int, domain: str, own_domain: bool = True) -> Document | Bad:
        if self.text_key not in values:
            return Bad(record, f"no key {self.text_key!r}; its keys are {', '.join(values)}")
        text = values[self.text_key]
        if not isinstance(text, str):
            return Bad(record, f"{self.text_key!r} is a {type(text).__name__}, not a text")
        if not text or text.isspace():
            return Bad(record, "the text is empty")
        if self.domain_key and own_domain:
            given = values.get(self.domain_key)
            if not isinstance(given, str):
                return Bad(record, f"the domain {self.domain_key!r} is {given!r}, not a text")
            domain = given
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return Bad(record, f"the text is not valid Unicode ({error.reason})")
        return Document(text, domain, record)


def format_of(path: str) -> str:
    """The suffix that names the format, compression taken off; UserError for one that is not known."""
    name = os.path.basename(path).lower()
    stem = name.removesuffix(".gz").removesuffix(".zst")
    suffix = os.path.splitext(stem)[1]
    if suffix not in FORMATS or (suffix == ".parquet" and stem != name):
        raise UserError(
            "the name of this file tells no known format",
            key="paths",
            value=path,
            fix=f"known: {', '.join(FORMATS)}; all but .parquet also followed by .gz or .zst",
        )
    return suffix


def opened(path: str, advance: Advance) -> BinaryIO:
    raw = io.BufferedReader(_Counted(path, advance), buffer_size=1 << 20)
    if path.lower().endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if path.lower().endswith(".zst"):
        return io.BufferedReader(_Zstandard(raw), buffer_size=1 << 20)
    return raw


class _Counted(io.FileIO):
    """A file that tells how many of its bytes have been read."""

    def __init__(self, path: str, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        self._advance(count)
        return count


class _Zstandard(io.RawIOBase):
    """A decompressed Zstandard stream of any number of frames. The library's reader takes a cut-off file for whole."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._damaged = zstandard.ZstdError
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            if data or self._frame is None or self._frame.eof:
                data = data or self._raw.read(1 << 20)
                if not data:
                    return 0
                self._frame = self._new_frame()
            else:
                data = self._raw.read(1 << 20)
                if not data:
                    raise EOFError("the last Zstandard frame does not end")
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except self._damaged as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
