"""Token files: one long stream of token ids, kept as flat arrays in files and read through memory maps.

In: files that each hold the ids of consecutive documents, an end-of-text id closing every document. Out: any span of
the virtual concatenation of these files, as uint32, whatever file boundaries it crosses.

    stream   0 ........ 999 | 1000 ....... 1799 | 1800 ...      TokenFiles.read(990, 1010) crosses the first boundary
    file          a         |         b         |   c

A file is named in results by its `name`, and known to fingerprints by its `digest`; its path serves only to open it, so
a moved file is the same file. Of a file that is being downloaded as far as it is needed, what has not come is never
read: a list beside it says what has. NumPy only, so that every worker can import it.
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

FETCH = "`pretrain-exp run` fetches what the steps of the run read; with data.fetch=none give data.root"
DTYPES = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}  # signed: as found in .npy files


class NotFetched(UserError):
    """Tokens that have not been downloaded."""


@dataclass(frozen=True)
class TokenFile:
    """A flat little-endian array of `num_tokens` ids of type `dtype` that begins `offset_bytes` into the file.

    coverage: where the list of what has come of it lies, as long as not all has; None: it is whole.
    """

    path: str
    dtype: str
    offset_bytes: int
    num_tokens: int
    digest: str  # of the ids' bytes
    name: str
    coverage: str | None = None

    def open(self) -> np.ndarray:
        """The ids, memory-mapped read-only, shape (num_tokens,), zeros where `covers` says no.

        UserError where the file is missing (NotFetched, if it is one to download) or too short.
        """
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
            if self.coverage is not None and isinstance(error, FileNotFoundError):
                problem = f"token file {self.name} has not been downloaded"
                raise NotFetched(problem, value=self.path, fix=FETCH) from None
            raise UserError(
                f"token file {self.path} cannot be opened: {error.strerror}",
                fix="restore it, or prepare the data again",
            ) from error
        # A plain array over the map: slicing np.memmap costs several times as much.
        return np.frombuffer(mapped, dtype, self.num_tokens, self.offset_bytes)

    def held(self) -> list[tuple[int, int]] | None:
        """The spans of tokens [start, stop) that a file in place holds, sorted and apart; None where it is whole."""
        if self.coverage is None or not Path(self.coverage).is_file():
            return None
        spans: list[tuple[int, int]] = []  # of bytes
        for start, stop, *_ in sorted(json.loads(Path(self.coverage).read_text())["spans"]):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(stop, spans[-1][1])
            else:
                spans.append((start, stop))
        first, size = self.offset_bytes, np.dtype(DTYPES[self.dtype]).itemsize
        return [(-((first - start) // size), (stop - first) // size) for start, stop in spans]


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

    @cached_property
    def _held(self) -> dict[int, list[tuple[int, int]]]:
        return {}  # of the opened files that are not whole

    def __getstate__(self) -> dict[str, Any]:
        # Maps are opened by each process for itself: sending one to a loader worker would send its contents.
        return {"files": self.files, "eos_token_id": self.eos_token_id, "documents": self.documents}

    @property
    def num_tokens(self) -> int:
        """Tokens in the stream."""
        return self._starts[-1]

    def array(self, index: int) -> np.ndarray:
        """The ids of file `index`, memory-mapped in their own dtype, shape (its num_tokens,); see `TokenFile.open`."""
        array = self._arrays[index]
        if array is None:
            array = self._arrays[index] = self.files[index].open()
            self._see_coverage(index)
        return array

    def _see_coverage(self, index: int) -> None:
        held = self.files[index].held()
        if held is None:
            self._held.pop(index, None)
        else:
            self._held[index] = held

    def _part(self, index: int, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of file `index`. NotFetched where they have not come."""
        part = self.array(index)[start:stop]
        if index in self._held and not self._covers(index, start, stop):
            self._see_coverage(index)  # more may have come since
            if index in self._held and not self._covers(index, start, stop):
                problem = f"tokens {start:,} to {stop:,} of {self.files[index].name} have not been downloaded"
                raise NotFetched(problem, value=self.files[index].path, fix=FETCH)
        return part

    def _covers(self, index: int, start: int, stop: int) -> bool:
        held = self._held[index]
        i = bisect_right(held, start, key=lambda span: span[0]) - 1
        return start >= stop or (i >= 0 and stop <= held[i][1])

    def locate(self, offset: int) -> tuple[int, int]:
        """The index of the file that holds the token at `offset` of the stream, and the token's offset in that file."""
        if not 0 <= offset < self.num_tokens:
            raise IndexError(f"token {offset} lies outside the stream of {self.num_tokens} tokens")
        index = bisect_right(self._starts, offset) - 1
        return index, offset - self._starts[index]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the stream, a fresh uint32 array (stop - start,); IndexError outside of it.

        NotFetched, a UserError, where some of them are still to be downloaded.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) lie outside the stream of {self.num_tokens} tokens")
        starts = self._starts
        index = bisect_right(starts, start) - 1
        if stop <= starts[min(index + 1, len(self.files))]:
            if start == stop:
                return np.empty(0, np.uint32)
            base = starts[index]
            return self._part(index, start - base, stop - base).astype(np.uint32)
        tokens = np.empty(stop - start, np.uint32)
        at = start
        while at < stop:
            index, offset = self.locate(at)
            part = self._part(index, offset, min(offset + stop - at, self.files[index].num_tokens))
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
