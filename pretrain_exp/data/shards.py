"""Shards: some files of texts become a folder of tokens that appears whole or not at all.

In: consecutive input files, a reader, a tokenizer. Out: a folder that `data.pack` joins with others:

    tokens.bin       every document's ids, each document closed by the end-of-text id
    lengths.npy      int64 (documents,): ids of each document, the closing one included
    about.npy        ABOUT_DTYPE (documents,): where each document comes from
    heldout.jsonl    {text, domain} of the documents that were kept out
    skipped.jsonl    {file, record, reason} of the records that are no documents
    part.json        the names of the domains, and counts
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pretrain_exp.data.readers import Advance, Bad, Document, TextReader
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError
from pretrain_exp.store.publish import beside, publish

ABOUT_DTYPE = np.dtype(
    [("file", "<i4"), ("record", "<i8"), ("domain", "<i4")]
)  # file: of all inputs; domain: of part.json
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Input:
    """A file of texts: where it is, what it is called, and what it holds."""

    path: str
    name: str
    digest: str


@dataclass(frozen=True)
class PackOptions:
    """on_bad: "error" or "skip"; holdout: share of the documents kept out; limit_tokens: of the whole stream."""

    on_bad: str = "error"
    holdout: float = 0.0
    holdout_seed: int = 0
    limit_tokens: int | None = None


def is_held_out(text: str, share: float, seed: int) -> bool:
    """Whether a document is in the seeded `share` kept out of the stream; equal texts go the same way anywhere."""
    if share <= 0.0:
        return False
    word = hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=f"holdout {seed}".encode()).digest()
    return int.from_bytes(word, "little") < share * 2.0**64


def write_part(
    files: list[tuple[int, Input]],
    reader: TextReader,
    tokenizer: Tokenizer,
    options: PackOptions,
    part: Path,
    advance: Advance,
) -> None:
    """Packs one shard into the folder `part`. files: (index among all inputs, file)."""
    staging = beside(part)
    staging.mkdir()
    writer = _PartWriter(staging, tokenizer, options)
    with writer.tokens, writer.heldout, writer.skipped:
        for index, file in files:
            for record in reader.read(file.path, advance):
                if isinstance(record, Bad):
                    writer.skip(file, record.record, record.reason)
                elif is_held_out(record.text, options.holdout, options.holdout_seed):
                    line = {"text": record.text, "domain": record.domain}
                    writer.heldout.write(json.dumps(line, ensure_ascii=False) + "\n")
                    writer.num_heldout += 1
                else:
                    writer.add(index, file, record)
                if writer.full:
                    break
            writer.flush(file)
            if writer.full:
                break
    writer.close()
    publish(staging, part)


class _PartWriter:
    """Collects documents into batches, encodes them and appends their tokens."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, options: PackOptions) -> None:
        self.folder, self.tokenizer, self.options = folder, tokenizer, options
        self.tokens = open(folder / "tokens.bin", "wb")  # noqa: SIM115 - closed by the caller's with
        self.heldout = open(folder / "heldout.jsonl", "w", encoding="utf-8")  # noqa: SIM115
        self.skipped = open(folder / "skipped.jsonl", "w", encoding="utf-8")  # noqa: SIM115
        self.batch: list[tuple[int, Document]] = []
        self.characters = 0
        self.lengths = array("q")
        self.about = {name: array("q") for name in ABOUT_DTYPE.names or ()}
        self.domains: dict[str, int] = {}
        self.reasons: Counter[str] = Counter()
        self.num_heldout = 0
        self.num_tokens = 0

    @property
    def full(self) -> bool:
        return self.options.limit_tokens is not None and self.num_tokens > self.options.limit_tokens

    def skip(self, file: Input, record: int, reason: str) -> None:
        if self.options.on_bad == "error":
            raise UserError(
                f"{file.path}, record {record}: {reason}",
                fix="mend it, or set on_bad: skip, which counts and lists it",
            )
        self.reasons[reason.split(";")[0]] += 1
        line = {"file": file.name, "record": record, "reason": reason}
        self.skipped.write(json.dumps(line, ensure_ascii=False) + "\n")

    def add(self, index: int, file: Input, document: Document) -> None:
        self.batch.append((index, document))
        self.characters += len(document.text)
        if self.characters >= _BATCH_CHARACTERS:
            self.flush(file)

    def flush(self, file: Input) -> None:
        """Encodes what has been collected; a batch never spans two files."""
        eos = self.tokenizer.eos_token_id
        dtype = np.dtype(self.tokenizer.token_dtype).newbyteorder("<")
        encoded = self.tokenizer.encode([document.text for _, document in self.batch])
        end = np.array([eos], dtype=np.uint32)
        pieces: list[np.ndarray] = []
        for (index, document), ids in zip(self.batch, encoded, strict=True):
            if not len(ids) or np.any(ids == eos):
                reason = "its tokens hold the end-of-text id" if len(ids) else "it has no tokens"
                self.skip(file, document.record, reason)
                continue
            pieces += [ids, end]
            self.lengths.append(len(ids) + 1)
            self.about["file"].append(index)
            self.about["record"].append(document.record)
            self.about["domain"].append(self.domains.setdefault(document.domain, len(self.domains)))
        if pieces:
            joined = np.concatenate(pieces).astype(dtype)
            self.tokens.write(joined.tobytes())
            self.num_tokens += len(joined)
        self.batch, self.characters = [], 0

    def close(self) -> None:
        np.save(self.folder / "lengths.npy", np.array(self.lengths, dtype="<i8"))
        about = np.empty(len(self.lengths), dtype=ABOUT_DTYPE)
        for name, column in self.about.items():
            about[name] = column
        np.save(self.folder / "about.npy", about)
        counts = {"domains": list(self.domains), "reasons": dict(self.reasons), "heldout": self.num_heldout}
        (self.folder / "part.json").write_text(json.dumps(counts), encoding="utf-8")
