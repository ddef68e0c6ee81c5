"""removal: sequences that hold given documents are replaced by unseen ones, and nothing plants the documents again.

    file --> runs --search of all that the run reads (once, cached)--> sequences that hold one of them
                                                                            |
             unseen sequences without any of them <--replaced by-----------+      (plan/unseen.py)
             the audit searches every sequence that the plan changes, after its edits

In: documents, as token ids or texts, or drawn from what the run reads. Out: edits, and every document as a probe for
verbatim completion. A seeded share of them can be kept, as the comparison within the run. (Train Once, Answer All,
experiment 5.)
"""

from __future__ import annotations

import builtins
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, keyed, ranked
from pretrain_exp.insertion.encoding import check_vocabulary
from pretrain_exp.insertion.ranges import RangeField, check_range, span_of
from pretrain_exp.insertion.scan import Runs
from pretrain_exp.insertion.unseen import Place, replace_sequences
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.hashing import key64
from pretrain_exp.plan.rows import field, read_rows

KIND = "verbatim"


@dataclass(frozen=True)
class Document:
    """A document to take away or to keep. tokens: uint32; runs: what may stand of it nowhere."""

    id: str
    text: str
    tokens: np.ndarray
    runs: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Takes documents out of what the run reads; see conf/insertion/removal.yaml."""

    file: str | None = None
    sample: int | None = None
    range: RangeField | None = None
    key: str = "tokens"
    ngram: int | None = None
    keep: float = 0.0
    prefix: int = 25

    def __post_init__(self) -> None:
        if (self.file is None) == (self.sample is None):
            problem = "documents come from a file or are drawn from what the run reads"
            raise UserError(problem, key="file", value=self.file, fix="give one of file and sample")
        if self.sample is not None and self.sample < 1:
            raise UserError("must be 1 or more", key="sample", value=self.sample)
        if self.range is not None:
            object.__setattr__(self, "range", check_range(self.range))
            if self.sample is None:
                problem = "a range is given, and no sample is drawn from it"
                raise UserError(problem, key="range", value=self.range, fix="leave it null, or give `sample`")
        if not 0 <= self.keep < 1:
            raise UserError("the share of documents that stay must lie in 0 to 1", key="keep", value=self.keep)
        for name in ("ngram", "prefix"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError("must be 1 token or more", key=name, value=value)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [] if self.file is None else [("file", self.file)]

    def describe(self) -> str:
        """What is not read, for the question of a report."""
        gone = f"the documents of {Path(self.file).name}" if self.file else f"{self.sample:,} of its sequences"
        return f"the data without {gone}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The replaced sequences and the probes. UserErrors carry the full key, insertion.<name>.<field>."""
        documents = self._drawn(context) if self.file is None else self._documents(context, self.file)
        owner = np.repeat(np.arange(len(documents)), [len(each.runs) for each in documents])
        runs = [run for each in documents for run in each.runs]
        found = context.find_runs(runs)
        gone = np.ones(len(documents), dtype=bool)
        gone[ranked([each.id for each in documents], context, "keep")[: round(self.keep * len(documents))]] = False
        taken = np.unique(found.slot[gone[owner[found.run]]])
        if not len(taken):
            problem = f"none of the {len(documents):,} documents stands whole in a sequence that the run reads"
            raise UserError(problem, key="file", value=self.file, fix="set ngram, or remove what the run reads")
        edits = _replaced(taken, context)
        absent = [run for run, i in zip(runs, owner.tolist(), strict=True) if gone[i]]
        probes = self._probes(documents, gone, set(owner[found.run].tolist()), _doses(found, owner, taken))
        counts = Counter(probe.group for probe in probes)
        groups = ", ".join(f"{count:,} {group}" for group, count in sorted(counts.items()))
        note = f"{groups}; {len(taken):,} of {len(context.slots):,} sequences replaced"
        return replace(edits, items=[*edits.items, *probes], absent=absent, notes=[note])

    def _drawn(self, context: InsertionContext) -> list[Document]:
        """`sample` stretches of twice the prefix, one of each of so many sequences that the run reads, by hash."""
        assert self.sample is not None
        first, stop = span_of(self.range, context)
        ends, columns = context.phases.locate(np.array([first, stop - 1]))
        size, slots = (
            2 * self.prefix,
            builtins.range(
                int(ends[0]) + int(columns[0] > 0), int(ends[1]) + int(columns[1] == context.sequence_length - 1)
            ),
        )
        if self.sample > len(slots) or size > context.sequence_length:
            problem = f"there are {len(slots):,} sequences of {context.sequence_length} tokens: too few or too short"
            raise UserError(problem, key="sample", value=self.sample, fix="draw fewer, or set a shorter prefix")
        starts = context.sequence_length - size + 1
        keys = [key64(context.seed, context.name, slot, "sample") for slot in slots]
        out: dict[str, Document] = {}
        for i in sorted(range(len(keys)), key=keys.__getitem__):
            column = key64(context.seed, context.name, slots[i], "column") % starts
            document = self._document("", np.array(context.data.read(slots[i])[column : column + size], np.uint32))
            out.setdefault(document.id, document)
            if len(out) == self.sample:
                return list(out.values())
        problem = f"the sequences there hold {len(out):,} different stretches of {size} tokens"
        raise UserError(problem, key="sample", value=self.sample, fix=f"draw at most {len(out)}, or widen the range")

    def _document(self, text: str, tokens: np.ndarray) -> Document:
        size = len(tokens) if self.ngram is None else self.ngram
        runs = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
        return Document(content_id("tokens", row_digest(tokens).hex()), text, tokens, runs)

    def _documents(self, context: InsertionContext, file: str) -> list[Document]:
        """The documents of the file. UserError for a row without tokens, or shorter than `ngram` or the prefix."""
        rows = [(row[0], field(row, self.key, file, "key")) for row in read_rows(file)]
        texts = [value for _, value in rows if isinstance(value, str)]
        encoded = iter(context.encode(texts) if texts else [])
        out: dict[str, Document] = {}
        for number, value in rows:
            text = value if isinstance(value, str) else ""
            tokens = np.asarray(next(encoded), np.uint32) if text else _ids(value, number, self)
            check_vocabulary(tokens, context, f"row {number} of {file}", "file")
            if len(tokens) <= max(self.prefix, (self.ngram or 1) - 1):
                problem = f"row {number} of {file} has {len(tokens)} tokens: too few for the prefix or the n-gram"
                raise UserError(problem, key="prefix", value=self.prefix, fix="shorten it, or remove this row")
            document = self._document(text, tokens)
            out[document.id] = document
        if not out:
            raise UserError("there is nothing to remove", key="file", value=self.file, fix="give at least one row")
        return list(out.values())

    def _probes(
        self, documents: list[Document], gone: np.ndarray, found: set[int], doses: Counter[int]
    ) -> list[EditItem]:
        """found: the documents that a sequence holds whole; the run may read others in parts, which nothing removes."""
        payload = json.dumps({"kind": KIND, "prefix": self.prefix}, separators=(",", ":"))
        groups = [("removed" if gone[i] else "kept") if i in found else "not found" for i in range(len(documents))]
        return [
            EditItem(each.id, each.tokens, each.text, groups[i], doses[i], payload, probe=True)
            for i, each in enumerate(documents)
        ]


def _replaced(taken: np.ndarray, context: InsertionContext) -> Edits:
    """Unseen sequences in the place of these slots; none of them is scored."""
    positions = context.phases.position(taken, np.zeros_like(taken)).tolist()
    places = [Place(f"slot{slot}", "replacement", at) for slot, at in zip(taken.tolist(), positions, strict=True)]
    return replace_sequences(context, places, score=0, holdout=0)


def _ids(value: Any, number: int, removal: Removal) -> np.ndarray:
    if not isinstance(value, list) or not value or not all(type(each) is int and 0 <= each < 1 << 32 for each in value):
        problem = f"row {number} of {removal.file}: {removal.key!r} must be a text or token ids"
        raise UserError(problem, key="key", value=value, fix="mend or remove this row")
    return np.array(value, dtype=np.uint32)


def _doses(found: Runs, owner: np.ndarray, taken: np.ndarray) -> Counter[int]:
    """In how many sequences each document is still read."""
    left = ~np.isin(found.slot, taken)
    pairs = set(zip(owner[found.run[left]].tolist(), found.slot[left].tolist(), strict=True))
    return Counter(document for document, _ in pairs)
