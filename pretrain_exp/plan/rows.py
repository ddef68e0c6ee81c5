"""Rows of a table file, with their numbers: .jsonl, .jsonl.gz, .csv or .parquet in, (row, fields) out.

Row numbers count from 1, as an editor does; in a .csv the row after the header is row 1.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pretrain_exp.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
Row = tuple[int, dict[str, Any]]
_ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that some editors put first


def check_file(path: str, key: str) -> None:
    """UserError where the file is missing or of a kind that `read_rows` does not know."""
    if Path(path).is_dir():
        raise UserError("is a folder", key=key, value=path, fix="give the path of a file")
    if not Path(path).is_file():
        raise UserError("there is no such file", key=key, value=path, fix="give the path of an existing file")
    if not path.endswith(SUFFIXES):
        raise UserError(
            "this kind of file cannot be read", key=key, value=path, fix=f"use one of {', '.join(SUFFIXES)}"
        )


def read_rows(path: str, key: str = "file") -> Iterator[Row]:
    """The rows of a file, one by one. UserError, under `key`, for a file or a row that cannot be read."""
    check_file(path, key)
    if path.endswith(".parquet"):
        yield from _parquet(path, key)
    elif path.endswith(".csv"):
        yield from _csv(path, key)
    else:
        yield from _jsonl(path, key)


def field(row: Row, name: str, path: str, key: str) -> Any:
    """The value of a field; UserError that names row, field and the fields there are."""
    number, fields = row
    if fields.get(name) is None:
        there = ", ".join(sorted(str(each) for each in fields if fields[each] is not None)) or "none"
        raise UserError(
            f"row {number} of {path} has no {name!r}; it has: {there}",
            key=key,
            value=name,
            fix=f"add a {name!r} to each row" + (f", or name the field that holds it in {key}" if "key" in key else ""),
        )
    return fields[name]


def position_of(row: Row, name: str, path: str, key: str, lowest: int = 0) -> int:
    """A field that is a position in tokens from the start of training; UserError where it is none, or below lowest."""
    value = field(row, name, path, key)
    try:
        position = int(value)
    except (TypeError, ValueError, OverflowError):
        position = lowest - 1
    if position < lowest or isinstance(value, bool) or (isinstance(value, float) and value != position):
        raise UserError(
            f"row {row[0]} of {path} has no position of 0 or more",
            key=key,
            value=value,
            fix="give the position in tokens from the start of training",
        )
    return position


def _csv(path: str, key: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # one field may hold a whole text
    number = 0
    try:
        with open(path, newline="", encoding=_ENCODING) as file:
            rows = csv.DictReader(file, strict=True)
            header = list(rows.fieldnames or ())
            if len(set(header)) < len(header):
                raise UserError(f"the header of {path} names a field twice", key=key, value=header, fix="rename one")
            for number, fields in enumerate(rows, 1):
                if None in fields or None in fields.values():
                    raise UserError(
                        f"row {number} of {path} has not as many fields as the header",
                        key=key,
                        fix='put quotes around a text that holds a comma, a quote or a line break: "Paris, France"',
                    )
                yield number, fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(number + 1, path, key, error) from error


def _jsonl(path: str, key: str) -> Iterator[Row]:
    number = 0
    try:
        with _open_text(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise UserError(
                        f"row {number} of {path} is a {type(fields).__name__}, not an object",
                        key=key,
                        fix='write one {"field": value} a line',
                    )
                yield number, fields
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _unreadable(max(number, 1), path, key, error) from error


def _unreadable(number: int, path: str, key: str, error: Exception) -> UserError:
    fix = "save the file as UTF-8" if isinstance(error, UnicodeDecodeError) else "mend or remove this row"
    return UserError(f"row {number} of {path} cannot be read: {error}", key=key, fix=fix)


def _open_text(path: str) -> TextIO:
    return gzip.open(path, "rt", encoding=_ENCODING) if path.endswith(".gz") else open(path, encoding=_ENCODING)


def _parquet(path: str, key: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=8192):
            for fields in batch.to_pylist():
                number += 1
                yield number, fields
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}", key=key, fix="write the file anew") from error
