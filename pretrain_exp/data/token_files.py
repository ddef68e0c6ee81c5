"""Token files: one long stream of token ids, kept as flat arrays in files and read through memory maps.

In: files that each hold the ids of consecutive documents, an end-of-text id closing every document. Out: any span of
the virtual concatenation of these files, as uint32, whatever file boundaries it crosses.

    stream   0 ........ 999 | 1000 ....... 1799 | 1800 ...      TokenFiles.read(990, 1010) crosses the first boundary
    file          a         |         b         |   c

A file is named in results by its `name`, and known to fingerprints by its `digest`; its path serves only to open it, so
a moved file is the same file. NumPy only, so that every worker can import it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError

DTYPES = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}  # signed: as found in .npy files


@dataclass(frozen=True)
class TokenFile:
    """A flat little-endian array of `num_tokens` ids of type `dtype` that begins `offset_bytes` into the file."""

    path: str
    dtype: str
    offset_bytes: int
    num_tokens: int
    digest: str  # of the ids' bytes
    name: str

    def open(self) -> np.ndarray:
        """The ids, memory-mapped read-only, shape (num_tokens,). UserError where the file is missing or too short."""
        dtype = np.dtype(DTYPES[self.dtype])
        needed = self.offset_bytes + self.num_tokens * dtype.itemsize
        try:
            size = Path(self.path).stat().st_size
            if size < needed:
                raise UserError(
                    f"token file {self.path} has {size} bytes; its {self.num_tokens} {self.dtype} tokens need {needed}",
                    fix="restore the file, or prepare the data again",
                )
            if self.num_tokens == 0:
                return np.empty(0, dtype)
            with open(self.path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(
                f"token file {self.path} cannot be opened: {error.strerror}",
                fix="restore it, or prepare the data again",
            ) from error
        # A plain array over the map: slicing np.memmap costs several times as much.
        return np.frombuffer(mapped, dtype, self.num_tokens, self.offset_bytes)


@dataclass(frozen=True)
class TokenFiles:
    """The stream: files in order, the id that ends a document, and (if known) where each document begins.

    `documents` is the path of a .npy file, int64 (number of documents,): offsets into the stream, ascending from 0.
    None where the source holds tokens from the start.
    """

    files: tuple[TokenFile, ...]
    eos_token_id: int
    documents: str | None = None

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(file.num_tokens for file in self.files)]  # of each file, then the end

    @cached_property
    def _arrays(self) -> list[np.ndarray | None]:
        return [None] * len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        # Maps are opened by each process for itself: sending one to a loader worker would send its contents.
        return {"files": self.files, "eos_token_id": self.eos_token_id, "documents": self.documents}

    @property
    def num_tokens(self) -> int:
        """Tokens in the stream."""
        return self._starts[-1]

    def array(self, index: int) -> np.ndarray:
        """The ids of file `index`, memory-mapped in their own dtype, shape (its num_tokens,)."""
        array = self._arrays[index]
        if array is None:
            array = self._arrays[index] = self.files[index].open()
        return array

    def locate(self, offset: int) -> tuple[int, int]:
        """The index of the file that holds the token at `offset` of the stream, and the token's offset in that file."""
        if not 0 <= offset < self.num_tokens:
            raise IndexError(f"token {offset} lies outside the stream of {self.num_tokens} tokens")
        index = bisect_right(self._starts, offset) - 1
        return index, offset - self._starts[index]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the stream, a fresh uint32 array (stop - start,); IndexError outside of it."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) lie outside the stream of {self.num_tokens} tokens")
        starts = self._starts
        index = bisect_right(starts, start) - 1
        if stop <= starts[min(index + 1, len(self.files))]:
            if start == stop:
                return np.empty(0, np.uint32)
            base = starts[index]
            return self.array(index)[start - base : stop - base].astype(np.uint32)
        tokens = np.empty(stop - start, np.uint32)
        at = start
        while at < stop:
            index, offset = self.locate(at)
            part = self.array(index)[offset : offset + stop - at]
            tokens[at - start : at - start + len(part)] = part
            at += len(part)
        return tokens

    def fingerprint(self) -> str:
        """32 hex digits of what the stream holds; neither paths nor names enter."""
        content = [[file.dtype, file.num_tokens, file.digest] for file in self.files]
        text = json.dumps(["token_files", 1, self.eos_token_id, content])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "files": [asdict(file) for file in self.files],
            "eos_token_id": self.eos_token_id,
            "documents": self.documents,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TokenFiles:
        """The stream that `to_json` wrote."""
        return cls(
            files=tuple(TokenFile(**file) for file in values["files"]),
            eos_token_id=values["eos_token_id"],
            documents=values["documents"],
        )
