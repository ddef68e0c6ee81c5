"""Perplexity by domain: documents in, per document nats, tokens, bytes and bits per byte out.

A document is read after the tokenizer's BOS token (EOS where there is none, which separates documents in training), so
each of its tokens is scored exactly once, in windows that do not overlap where it is long (text_loss.py).
The task of a score is the domain, its item the content id of the text (or of the tokens).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.documents import Document, read_documents
from pretrain_exp.eval.job import digest_file
from pretrain_exp.eval.text_loss import Run, losses
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Scores documents.

    files:           .jsonl (.gz, .zst), .parquet or .txt; None = the documents that the data source holds out.
    text_key:        where a row has its text (rows with token ids under "tokens" serve as well).
    domain_key:      where a row has its domain; without one, the name of the file.
    sequence_length: tokens to read at once; None = as many as the model can.
    limit:           score a seeded subset of this many documents; None = all.
    seed:            of that subset.
    batch_size:      windows at once; changes no score beyond rounding.
    """

    files: list[str] | None = None
    text_key: str = "text"
    domain_key: str = "domain"
    sequence_length: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 16
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return [("files", file) for file in self.files or []]

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        return {
            "evaluation": "perplexity",
            "version": VERSION,
            "files": [[path.name, digest_file(path)] for path in self._readable()],
            "text_key": self.text_key,
            "domain_key": self.domain_key,
            "sequence_length": self.sequence_length,
            "limit": self.limit,
            "seed": self.seed,
        }

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        if not self.files and context.held_out is None:
            context.notes.append("the data source holds no documents out and `files` names none: nothing was scored")
            return []
        documents = {key: each for key, each in self._documents(context).items() if context.shard.holds(*key)}
        tokens = _tokens(documents, model)
        runs = [Run(model.start_token, read) for read in tokens]
        nats = losses(model, runs, self._length(model), self.batch_size, context)
        scores: list[Score] = []
        for ((domain, item), document), read, nll in zip(documents.items(), tokens, nats, strict=True):
            text = document.text if document.text is not None else str(model.tokenizer.decode(list(read)))
            size = len(text.encode("utf-8"))
            values = {"nll": nll, "tokens": len(read), "bytes": size, "bits_per_byte": nll / (math.log(2) * size)}
            scores += [Score(domain, item, metric, float(value)) for metric, value in values.items()]
        return scores

    def _readable(self) -> list[Path]:
        """The files, by whose names domains may be called. UserError where the first document of one has no text."""
        files = _existing(self.files or [])
        for path in files:
            next(read_documents(path, self.text_key, self.domain_key), None)
        return files

    def _paths(self, context: EvalContext) -> list[Path]:
        """The files to read, else what the data source holds out. Raises UserError for a file that is not there."""
        return _existing(self.files) if self.files else [context.held_out] if context.held_out else []

    def _documents(self, context: EvalContext) -> dict[tuple[str, str], Document]:
        """Distinct documents by (domain, id); what is left out is noted."""
        found: Counter[tuple[str, str]] = Counter()
        documents: dict[tuple[str, str], Document] = {}
        empty = 0
        for path in self._paths(context):
            for document in read_documents(path, self.text_key, self.domain_key):
                if not document.text and not document.tokens:
                    empty += 1
                    continue
                key = (document.domain, _id(document))
                found[key] += 1
                documents.setdefault(key, document)
        if empty:
            context.notes.append(f"{empty} empty documents were left out")
        if repeated := found.total() - len(documents):
            context.notes.append(f"{repeated} repeated documents were scored once")
        if not documents:
            raise UserError("no document to measure", key="files", value=self.files, fix="check the files")
        if self.limit is not None and self.limit > len(documents):
            context.notes.append(f"limit asks for {self.limit} documents, there are {len(documents)}: all were scored")
        if self.limit is None or self.limit >= len(documents):
            return documents
        order = sorted(documents, key=lambda key: content_id("rank", str(self.seed), *key))
        return {key: documents[key] for key in order[: self.limit]}

    def _length(self, model: LoadedModel) -> int:
        if self.sequence_length is None:
            return model.context_length
        if self.sequence_length > model.context_length:
            raise UserError(
                f"the model reads {model.context_length} tokens at once",
                key="sequence_length",
                value=self.sequence_length,
                fix=f"choose at most {model.context_length}, or null",
            )
        return self.sequence_length


def _existing(files: Sequence[str]) -> list[Path]:
    for file in files:
        if not Path(file).is_file():
            raise UserError("no such file", key="files", value=file, fix="check the path")
    return [Path(file) for file in files]


def _tokens(documents: dict[tuple[str, str], Document], model: LoadedModel) -> list[Sequence[int]]:
    """The tokens of each document, without special ones."""
    texts = [document.text for document in documents.values() if document.text is not None]
    encoded = iter(model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
    return [document.tokens or next(encoded) for document in documents.values()]


def _id(document: Document) -> str:
    if document.text is not None:
        return content_id(document.text)
    return content_id("tokens", *map(str, document.tokens or ()))
