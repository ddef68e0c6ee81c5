"""Data source: files of texts, tokenized and packed.

In: JSON Lines, Parquet or plain text, compressed or not (`data.readers`). Out: the stream of all their documents
(`data.pack`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pretrain_exp.data import inputs, pack
from pretrain_exp.data.readers import TextReader, format_of
from pretrain_exp.data.shards import Input, PackOptions
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Documents from files. `holdout`: the share that never enters the stream (`data.pack.heldout` is its file)."""

    paths: list[str]
    text_key: str = "text"
    domain_key: str | None = None
    split: Literal["file", "paragraph"] = "file"
    on_bad: Literal["error", "skip"] = "error"
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    holdout_seed: int = 0
    limit_tokens: Annotated[int, Field(ge=1)] | None = None
    processes: Annotated[int, Field(ge=1)] | None = None

    def files(self) -> list[tuple[str, str]]:
        """(configuration key, path) of every input; a pattern that matches nothing stands for itself."""
        return inputs.matches(self.paths)

    def prepare(self, cache: Path, tokenizer: Tokenizer, progress: bool = True, name: str = "texts") -> TokenFiles:
        """The packed stream, made now or taken from `cache`; `name` is what results call its file."""
        return pack.pack(
            self._inputs(cache), self._reader(), tokenizer, self._options(), cache, name, self.processes, progress
        )

    def texts(self, cache: Path) -> Iterator[str]:
        """The documents that may enter the stream, to train a tokenizer on."""
        return pack.texts_of(self._inputs(cache), self._reader(), self._options())

    def fingerprint_inputs(self, cache: Path) -> dict[str, Any]:
        """What the texts are: digests of the files, and how they are read. No paths."""
        files = [[file.digest, file.name] for file in self._inputs(cache)]
        return {"kind": "texts", "files": files, "reader": asdict(self._reader()), "options": asdict(self._options())}

    def texts_digest(self, cache: Path) -> str:
        """32 hex digits of `fingerprint_inputs`."""
        return hashlib.blake2b(json.dumps(self.fingerprint_inputs(cache)).encode(), digest_size=16).hexdigest()

    def _inputs(self, cache: Path) -> list[Input]:
        paths = inputs.expand(self.paths)
        for path in paths:
            format_of(path)
        digests = [inputs.file_digest(path, cache) for path in paths]
        return [Input(*row) for row in zip(paths, inputs.names(paths), digests, strict=True)]

    def _reader(self) -> TextReader:
        return TextReader(self.text_key, self.domain_key, self.split)

    def _options(self) -> PackOptions:
        return PackOptions(self.on_bad, self.holdout, self.holdout_seed, self.limit_tokens)
