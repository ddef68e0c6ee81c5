"""Data source: files that hold token ids already.

In: flat arrays of uint16 or uint32 without a header (the layout of OLMo, whatever their suffix), or real .npy files,
which are recognised by their first bytes and read in their own type. Out: their concatenation, memory-mapped where it
lies; nothing is copied. What cannot be a stream of this tokenizer is refused here: a size that is no whole number of
tokens, an id outside the vocabulary.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pretrain_exp.data import inputs
from pretrain_exp.data.progress import progress_bar
from pretrain_exp.data.token_files import DTYPES, TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError

_NPY_MAGIC = b"\x93NUMPY"
_PROBES, _PROBE_TOKENS = 16, 4096
_CHUNK_TOKENS = 1 << 22
_READERS = 8  # threads at most; one digests about 1 GB/s


@dataclass(frozen=True, kw_only=True)
class TokenFileSource:
    """Token files in the order of `paths` (sorted within a pattern).

    header_bytes: skipped at the beginning of files without a NumPy header. eos_token_id: the id that ends documents,
    by default the tokenizer's. digest: "whole" knows files by every byte, read once as long as size and time stamps
    stay; "sampled" those of more than 64 MiB by their size and 16 probes, so that a change elsewhere in one goes unseen
    and keeps every key. audit: holds every id against the vocabulary, not only 16 x 4096 of each file.
    """

    paths: list[str]
    dtype: Literal["uint16", "uint32"]
    header_bytes: Annotated[int, Field(ge=0)] = 0
    eos_token_id: Annotated[int, Field(ge=0)] | None = None
    digest: Literal["whole", "sampled"] = "whole"
    audit: bool = False

    def files(self) -> list[tuple[str, str]]:
        """(configuration key, path) of every input; a pattern that matches nothing stands for itself."""
        return inputs.matches(self.paths)

    def prepare(self, cache: Path, tokenizer: Tokenizer, progress: bool = True) -> TokenFiles:
        """The stream. UserError for a size that is no whole number of tokens, or an id outside the vocabulary."""
        files = self._files(cache, progress)
        total = sum(file.num_tokens for file in files) if self.audit else len(files)
        with progress_bar("checking token ids", total, "tokens" if self.audit else "files", progress) as advance:
            for file in files:
                for start, stop in _spans(file.num_tokens, self.audit):
                    _check_ids(file, start, file.open()[start:stop], tokenizer.vocab_size)
                    advance(stop - start if self.audit else 0)
                advance(0 if self.audit else 1)
        return TokenFiles(tuple(files), self._eos(tokenizer))

    def fingerprint_inputs(self, cache: Path) -> dict[str, Any]:
        """What the files hold: type, tokens, digest of each. No paths."""
        files = [[file.dtype, file.num_tokens, file.digest] for file in self._files(cache, False)]
        return {"kind": "token_files", "files": files, "eos_token_id": self.eos_token_id}

    def _eos(self, tokenizer: Tokenizer) -> int:
        return tokenizer.eos_token_id if self.eos_token_id is None else self.eos_token_id

    def _files(self, cache: Path, progress: bool) -> list[TokenFile]:
        paths = inputs.expand(self.paths)
        layouts = [_npy_layout(path) or (self.dtype, self.header_bytes) for path in paths]
        counts = [_num_tokens(path, dtype, offset) for path, (dtype, offset) in zip(paths, layouts, strict=True)]
        total = sum(count * np.dtype(dtype).itemsize for count, (dtype, _) in zip(counts, layouts, strict=True))
        whole = self.digest == "whole"
        with (
            progress_bar("reading token files", total, "bytes", progress) as advance,
            ThreadPoolExecutor(min(_READERS, len(os.sched_getaffinity(0)))) as pool,
        ):
            digests = list(
                pool.map(
                    lambda path, layout: inputs.file_digest(
                        path, cache, offset=layout[1], whole=whole, advance=advance
                    ),
                    paths,
                    layouts,
                )
            )
        return [
            TokenFile(os.path.abspath(path), dtype, offset, count, digest, name)  # jobs may be run from another folder
            for path, (dtype, offset), count, digest, name in zip(
                paths, layouts, counts, digests, inputs.names(paths), strict=True
            )
        ]


def _npy_layout(path: str) -> tuple[str, int] | None:
    """Type of the ids and offset of the first, where the file begins with a NumPy header."""
    with open(path, "rb") as file:
        if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise UserError(f"this .npy file is damaged or holds objects: {error}", key="paths", value=path) from error
    if array.ndim != 1 or array.dtype not in [np.dtype(code) for code in DTYPES.values()]:
        raise UserError(
            f"this .npy file holds {array.dtype} of shape {array.shape}, not a flat array of token ids",
            key="paths",
            value=path,
            fix=f"save one dimension of {', '.join(DTYPES)}",
        )
    return array.dtype.name, array.offset


def _num_tokens(path: str, dtype: str, offset: int) -> int:
    size, item = os.path.getsize(path), np.dtype(dtype).itemsize
    if size <= offset:
        raise UserError(
            f"the file has {size} bytes, {offset} of them header: no tokens",
            key="paths",
            value=path,
            fix="leave this file out, or mend header_bytes",
        )
    if (size - offset) % item:
        raise UserError(
            f"the file has {size - offset} bytes of ids, which is no multiple of the {item} bytes of {dtype}",
            key="paths",
            value=path,
            fix="mend dtype or header_bytes, or fetch the file again if it is cut off",
        )
    return (size - offset) // item


def _spans(num_tokens: int, every: bool) -> list[tuple[int, int]]:
    """All of a file in chunks, or evenly spread probes of it."""
    if every or num_tokens <= _PROBES * _PROBE_TOKENS:
        return [(i, min(i + _CHUNK_TOKENS, num_tokens)) for i in range(0, num_tokens, _CHUNK_TOKENS)]
    last = num_tokens - _PROBE_TOKENS
    return [(start, start + _PROBE_TOKENS) for start in (last * i // (_PROBES - 1) for i in range(_PROBES))]


def _check_ids(file: TokenFile, start: int, ids: np.ndarray, vocab_size: int) -> None:
    wrong = (ids >= vocab_size) | (ids < 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise UserError(
            f"token {start + at} of {file.path} is {ids[at]}, outside the tokenizer's {vocab_size} ids",
            key="dtype",
            value=file.dtype,
            fix="mend dtype or header_bytes, or name the tokenizer that made these files",
        )
