"""Data source: the token files of an official mix, fetched from their server as far as the planned steps read them.

    list (official_list.py) --sizes, by HEAD requests--> TokenFiles: the stream, known before any token has come
    data order, slots  --official_spans.py-------> bytes of each file --download--> sparse files, and what they hold

A file is looked for under `root` first, where it lies whole and is never written to, else below `cache`, where it grows
as more steps are planned. What has not come is never read: `TokenFiles.read` raises. A file of a mix is known by its
path in the mix and its size, wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from rich.console import Console

from pretrain_exp.data.official_list import Entry, entries, list_file
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.store.download import download
from pretrain_exp.store.part_file import spans_held, spans_path
from pretrain_exp.store.sizes import forget_sizes, remote_sizes
from pretrain_exp.store.spans import Span, join, subtract, total
from pretrain_exp.store.transfer import Download, Options


@dataclass(frozen=True, kw_only=True)
class OfficialMix:
    """The files of `mix`, in its order.

    mix: an OLMo-2 YAML, the name of a mix of ai2-olmo-core, or a text file with a path or URL a line. base_url: what
    paths stand below. root: a folder with files of the mix at their paths below base_url. fetch: of what root lacks,
    the spans that are read (`spans`), every file that is read from (`whole`), or nothing (`none`). tokenizer: what
    {TOKENIZER} in a path stands for. python: where ai2-olmo-core is looked for besides here.
    """

    mix: str | None = None
    base_url: str = "http://olmo-data.org"
    root: str | None = None
    fetch: Literal["spans", "whole", "none"] = "spans"
    dtype: Literal["uint16", "uint32"] = "uint32"
    tokenizer: str | None = None
    eos_token_id: Annotated[int, Field(ge=0)] | None = None
    python: str | None = None
    connections: Annotated[int, Field(ge=1)] = 16

    def files(self) -> list[tuple[str, str]]:
        """(configuration key, path) of what must be there before anything is fetched."""
        listed = None if self.mix is None else list_file(self.mix)
        found = [("mix", listed)] if listed is not None else []
        return [*found, *([("root", self.root)] if self.root is not None else [])]

    def prepare(self, cache: Path, tokenizer: Tokenizer, progress: bool = True) -> TokenFiles:
        """The stream, whatever has come of it. UserError for a list or sizes that cannot be had, all files named."""
        eos = tokenizer.eos_token_id if self.eos_token_id is None else self.eos_token_id
        return TokenFiles(self._stream(cache), eos)

    def check(self, cache: Path) -> list[UserError]:
        """What keeps the stream from being known, whatever the tokenizer."""
        try:
            self._stream(cache)
        except UserError as error:
            return [error]
        return []

    def _stream(self, cache: Path) -> tuple[TokenFile, ...]:
        listed = self._entries()
        files = [self._whole(entry) or self._kept(entry, cache) for entry in listed]
        absent = [entry for entry, file in zip(listed, files, strict=True) if file is None]
        if absent and self.fetch == "none":
            raise _absent(absent, self.root)
        sizes = dict(zip(absent, self._ask(absent, cache), strict=True))
        return tuple(
            file or self._file(entry, _place(cache, entry), sizes[entry])
            for entry, file in zip(listed, files, strict=True)
        )

    def fingerprint_inputs(self, cache: Path) -> dict[str, Any]:
        """What the mix is: the names of its files. No paths of this machine."""
        names = [entry.name for entry in self._entries()]
        return {"kind": "official", "names": names, "dtype": self.dtype, "eos_token_id": self.eos_token_id}

    def missing(self, files: TokenFiles, spans: Mapping[str, Sequence[Span]]) -> list[Download]:
        """What is to be fetched before `spans` (bytes, by path) can be read, each file once; [] where all is here.

        Every file gets its place and its size: a framework's own loader asks for both. Raises UserError where that
        needs what `fetch: none` forbids.
        """
        urls = {entry.name: entry.url for entry in self._entries()}
        needed: dict[str, Download] = {}
        for file in files.files:
            if file.coverage is None or file.path in needed:
                continue
            path, wanted = Path(file.path), join(spans.get(file.path, ()))
            size = file.num_tokens * np.dtype(file.dtype).itemsize
            if path.is_file():
                held = spans_held(path)
                wanted = [] if held is None else subtract(wanted, held)
                if not wanted:
                    continue
            whole = self.fetch == "whole" and wanted
            needed[file.path] = Download(urls[file.name], path, size, spans=None if whole else tuple(wanted))
        if needed and self.fetch == "none":
            raise _absent([Entry(name, urls[name]) for name in urls if _of(name, needed)], self.root).under("data")
        return list(needed.values())

    def download(self, needed: Sequence[Download], files: TokenFiles, vocab_size: int, cache: Path) -> None:
        """Fetches what `missing` named, then holds some ids of each file against the vocabulary. UserError."""
        try:
            download(needed, Options(connections=self.connections), Console(stderr=True))
        except (UserError, Problems) as error:
            forget_sizes([file.url for file in needed], _folder(cache))  # another file may be there now
            if isinstance(error, UserError) and "whole files only" in error.problem:
                raise UserError(
                    error.problem, key="data.fetch", value=self.fetch, fix="data.fetch=whole, or give data.root"
                ) from None
            raise
        paths = {str(file.path) for file in needed}
        for file in files.files:
            if file.path in paths:
                _check_ids(file, vocab_size)

    def _entries(self) -> list[Entry]:
        if self.mix is None:
            fix = (
                "give an OLMo-2 YAML, the name of a mix of ai2-olmo-core such as OLMo-mix-0625-official, or a list of "
                "paths or URLs; a model's own is model.data_mix, and data=token_files reads files that lie here"
            )
            raise UserError("no official list of token files is named", key="mix", value=None, fix=fix)
        return entries(self.mix, self.base_url, self.tokenizer, self.python)

    def _whole(self, entry: Entry) -> TokenFile | None:
        """The file under `root`, where it is."""
        path = Path(self.root or "", entry.name).absolute()
        if self.root is None or not path.is_file():
            return None
        return self._file(entry, path, path.stat().st_size, grows=False)

    def _kept(self, entry: Entry, cache: Path) -> TokenFile | None:
        """The file that an earlier run began to fetch; it has its full size from the beginning."""
        path = _place(cache, entry)
        return self._file(entry, path, path.stat().st_size) if path.is_file() else None

    def _ask(self, absent: list[Entry], cache: Path) -> list[int]:
        """The sizes of files on their servers."""
        try:
            options = Options(connections=self.connections)
            return [remote.size for remote in remote_sizes([entry.url for entry in absent], _folder(cache), options)]
        except (UserError, Problems) as error:
            reason = error.problem if isinstance(error, UserError) else error.problems[0].render()
            problem = f"the sizes of {len(absent):,} token files of the mix are not known yet: {reason}"
            fix = "plan once where the server can be reached, with the same store; or give data.root, which has them"
            raise UserError(problem, key="base_url", value=self.base_url, fix=fix) from error

    def _file(self, entry: Entry, path: Path, size: int, grows: bool = True) -> TokenFile:
        item = np.dtype(self.dtype).itemsize
        if size % item:
            raise UserError(
                f"{entry.name} has {size:,} bytes, which is no multiple of the {item} bytes of {self.dtype}",
                key="dtype",
                value=self.dtype,
                fix="mend dtype, or fetch the file again if it is cut off" if grows else f"mend {path}",
            )
        content = json.dumps(["official", 1, entry.name, size])
        digest = f"official-{hashlib.blake2b(content.encode(), digest_size=12).hexdigest()}"
        coverage = str(spans_path(path)) if grows else None
        return TokenFile(str(path), self.dtype, 0, size // item, digest, entry.name, coverage)


def bytes_of(needed: Sequence[Download]) -> int:
    """How much is to be fetched."""
    return sum(file.size or 0 if file.spans is None else total(file.spans) for file in needed)


def _folder(cache: Path) -> Path:
    return cache / "official"


def _place(cache: Path, entry: Entry) -> Path:
    return (_folder(cache) / "files" / entry.name).absolute()


def _of(name: str, needed: Mapping[str, Download]) -> bool:
    return any(path.endswith(f"/{name}") for path in needed)


def _absent(absent: Sequence[Entry], root: str | None) -> UserError:
    some = ", ".join(entry.name for entry in absent[:3]) + (", ..." if len(absent) > 3 else "")
    problem = f"{len(absent):,} token files of the mix are not here, and data.fetch=none fetches none: {some}"
    fix = "give data.root, the folder that has them at these paths; or data.fetch=spans fetches what the steps read"
    return UserError(problem, key="root", value=root, fix=fix)


def _check_ids(file: TokenFile, vocab_size: int) -> None:
    """The first tokens that came, against the vocabulary: another type of ids, or an answer that is no token file."""
    held = file.held()
    start, stop = held[0] if held else (0, file.num_tokens) if held is None else (0, 0)
    ids = file.open()[start : min(stop, start + 4096)]
    if (ids >= vocab_size).any():
        at = int(np.argmax(ids >= vocab_size))
        raise UserError(
            f"token {start + at} of {file.name} is {ids[at]}, outside the tokenizer's {vocab_size} ids",
            key="data.dtype",
            value=file.dtype,
            fix="mend dtype, or name the tokenizer that made this mix",
        )
