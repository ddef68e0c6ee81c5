"""Documents to measure a model on: files in, texts with a domain out.

.jsonl, .jsonl.gz, .jsonl.zst, .parquet: one document a row, a text (or a list of token ids under "tokens") and, if
wanted, its domain. .txt: the whole file is one document. Without a domain, a document has the name of its file.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pretrain_exp.data.readers import opened as opened_binary
from pretrain_exp.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt")
TOKENS_KEY = "tokens"


@dataclass(frozen=True)
class Document:
    """A text, or the tokens of one where only these are known."""

    domain: str
    text: str | None
    tokens: tuple[int, ...] | None = None


def read_documents(path: Path, text_key: str, domain_key: str) -> Iterator[Document]:
    """The documents of one file, in its order. Raises UserError for a file that is damaged or of another kind."""
    name = path.name
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError("not a kind of file that holds documents", key="files", value=str(path), fix=f"use {SUFFIXES}")
    domain = name.removesuffix(suffix)
    if suffix == ".txt":
        with opened(path) as file:
            yield Document(domain, file.read())
        return
    for where, row in _parquet_rows(path) if suffix == ".parquet" else _json_rows(path):
        said = row.get(domain_key)
        yield _document(row, where, text_key, domain if said in (None, "") else str(said))


def _document(row: dict[str, Any], where: str, text_key: str, domain: str) -> Document:
    text, tokens = row.get(text_key), row.get(TOKENS_KEY)
    if isinstance(text, str):
        return Document(domain, text)
    if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens):
        return Document(domain, None, tuple(tokens))
    raise UserError(
        f"{where} has neither a text under {text_key!r} nor token ids under {TOKENS_KEY!r}",
        key="text_key",
        value=text_key,
        fix=f"name one of its keys: {', '.join(sorted(row))}",
    )


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{where} is not JSON: {error}", key="files", fix="mend this line") from error
            if not isinstance(row, dict):
                raise UserError(f"{where} is not a JSON object", key="files", fix="write one object a line")
            yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                yield f"{path}, row {number}", row
                number += 1
    except pa.ArrowInvalid as error:
        raise UserError(f"damaged: {error}", key="files", value=str(path), fix="replace the file") from error


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, decompressed; damage found while reading becomes a UserError."""
    try:
        with io.TextIOWrapper(opened_binary(str(path), lambda count: None), encoding="utf-8") as file:
            yield file
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"damaged: {error}", key="files", value=str(path), fix="replace the file") from error
