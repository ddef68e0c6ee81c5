"""Documents: which document a token belongs to, and where a document is read.

In: a token stream that knows where its documents begin (packed by `data.pack`, or indexed here by their end-of-text
id). Out: maps between (slot, column) and (document, offset in it), both ways.

    stream     a a a E b b E c c c c c E        document = its tokens and the end-of-text id E that closes it
    starts     0       4     7                  a file of the stream always begins a document
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.progress import progress_bar
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError

_CHUNK_TOKENS = 1 << 22


@dataclass(frozen=True)
class Piece:
    """The part of one document that one slot reads: columns [column, column + length)."""

    document: int
    offset: int  # in the document
    column: int
    length: int


@dataclass(frozen=True)
class Origin:
    """The text a document was made of: its file, its record there (from 0), its domain."""

    file: str
    record: int
    domain: str


class Documents:
    """The documents of a stream, numbered from 0 in its order."""

    def __init__(self, files: TokenFiles) -> None:
        """UserError where the documents of these files are not indexed yet."""
        if files.documents is None:
            raise UserError("the documents of these token files are not indexed", fix="call index_documents first")
        self.files = files
        self.starts: np.ndarray = np.load(files.documents, mmap_mode="r", allow_pickle=False)  # int64 (documents,)

    def __len__(self) -> int:
        return len(self.starts)

    def span(self, document: int) -> tuple[int, int]:
        """The tokens [start, stop) of the stream that are this document, its end-of-text id included."""
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} lies outside [0, {len(self)})")
        last = document + 1 == len(self)
        return int(self.starts[document]), self.files.num_tokens if last else int(self.starts[document + 1])

    def of_offsets(self, offsets: np.ndarray) -> np.ndarray:
        """The document of each token: offsets in the stream int64 (n,) -> int64 (n,)."""
        return np.searchsorted(self.starts, offsets, side="right") - 1

    def in_slot(self, order: DataOrder, slot: int) -> list[Piece]:
        """What a slot reads, document by document, in the order of its columns."""
        begin = order.stream_offset(slot, 0)
        end = begin + order.sequence_length
        pieces, at = [], begin
        document = int(self.of_offsets(np.array([begin]))[0])
        while at < end:
            start, stop = self.span(document)
            stop = min(stop, end)
            pieces.append(Piece(document, at - start, at - begin, stop - at))
            at, document = stop, document + 1
        return pieces

    def positions_of(
        self, order: DataOrder, document: int, first_slot: int, last_slot: int
    ) -> list[tuple[int, int, int]]:
        """(slot, column, length) of slots [first_slot, last_slot) that read a part of this document, in every epoch."""
        return order.positions_of(*self.span(document), first_slot, last_slot)

    def origin(self, document: int) -> Origin | None:
        """The text it was made of; None where the source held tokens from the start."""
        if self._about is None or self._meta is None:
            return None
        row = self._about[document]
        domain = self._meta["domains"][int(row["domain"])]["domain"]
        return Origin(self._meta["files"][int(row["file"])], int(row["record"]), domain)

    @cached_property
    def _about(self) -> np.ndarray | None:
        path = Path(self.files.documents or "").with_name("about.npy")
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None

    @cached_property
    def _meta(self) -> dict | None:
        path = Path(self.files.documents or "").with_name("meta.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def index_documents(files: TokenFiles, cache: Path, progress: bool = True) -> TokenFiles:
    """The same stream, its documents known: found by their end-of-text ids in one pass, kept in `cache` by content.

    A stream that knows them already is returned as it is. Memory: one chunk of 4 Mi tokens, whatever the stream's
    length.
    """
    if files.documents is not None:
        return files
    path = cache / "documents" / files.fingerprint() / "documents.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        starts = path.with_name(f".starts.{uuid.uuid4().hex[:8]}")
        _write_starts(files, starts, progress)
        # A .npy header states the length, which is known only now.
        staging = starts.with_suffix(".npy")
        with open(staging, "wb") as out, open(starts, "rb") as raw:
            shape = (starts.stat().st_size // 8,)
            np.lib.format.write_array_header_1_0(out, {"descr": "<i8", "fortran_order": False, "shape": shape})
            shutil.copyfileobj(raw, out, 1 << 22)
        starts.unlink()
        os.replace(staging, path)
    return replace(files, documents=str(path))


def _write_starts(files: TokenFiles, path: Path, progress: bool) -> None:
    base = 0
    with open(path, "wb") as out, progress_bar("finding documents", files.num_tokens, "tokens", progress) as advance:
        for index, file in enumerate(files.files):
            ids = files.array(index)
            starts = np.zeros(min(1, file.num_tokens), dtype="<i8")
            for chunk in range(0, file.num_tokens, _CHUNK_TOKENS):
                part = ids[chunk : chunk + _CHUNK_TOKENS]
                after = np.flatnonzero(part == files.eos_token_id).astype("<i8") + chunk + 1
                starts = np.concatenate([starts, after[after < file.num_tokens]])
                out.write((starts + base).astype("<i8").tobytes())
                starts = starts[:0]
                advance(len(part))
            base += file.num_tokens
