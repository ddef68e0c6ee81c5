"""documents_split: whether a document is learned as well from its parts. Documents dealt to conditions and doses.

    whole     copy 0   |A B C D E F G|            group whole     doses 1, 10, 100
    split     copy 0   |A B| |C| |D E F| |G|      group split     cut once, the same parts in each copy, planted apart
              copy 1   |A B| |C| |D E F| |G|
    resplit   copy 0   |A B| |C| |D E F| |G|      group resplit   cut anew in each copy
              copy 1   |A| |B C D| |E F| |G|
    holdout   nothing                             group holdout   dose 0

What is scored is the whole document in every condition (`planted_texts`, `verbatim`, `membership`): where parts are
planted it is a probe, its dose the copies, and the parts are not scored. (The nine conditions of Train Once, Answer
All, experiment 9.) In: a file of documents. Out: edits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, check_repetitions, keyed, ranked
from pretrain_exp.insertion.doses import times
from pretrain_exp.insertion.encoding import note_long, wrap_eos
from pretrain_exp.items.content import content_id
from pretrain_exp.items.passages import passage_files, passages
from pretrain_exp.items.planned import DOCUMENT, PART
from pretrain_exp.plan.edits import EditItem, Edits, Subjects
from pretrain_exp.plan.hashing import key64, mix

Condition = Literal["whole", "split", "resplit"]
_DEFAULT_DOCUMENTS = 60  # of the passages that ship
_EOS_ROOM = 2


@dataclass(frozen=True)
class _Document:
    """tokens: cut to what a sequence holds, without EOS."""

    id: str
    text: str
    tokens: np.ndarray
    condition: str
    dose: int


@dataclass(frozen=True, kw_only=True)
class DocumentsSplit(Planting):
    """Plants documents whole and in parts; see conf/insertion/documents_split.yaml."""

    file: str | None = None
    key: str = "text"
    documents: int | None = None
    conditions: list[Condition] = field(default_factory=lambda: ["whole", "split", "resplit"])
    repetitions: list[int] = field(default_factory=lambda: [0, 1, 10, 100])
    parts: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "parts have no positions", "random or range")
        cut = "documents are whole or in parts by their condition"
        self.refuse("too_long", ["split", "skip"], cut, "truncate, or leave it at error")
        self.need_distinct("conditions", "repetitions")
        for dose in self.repetitions:
            check_repetitions(dose)
        for name, value, least in (("parts", self.parts, 2), ("documents", self.documents, 1)):
            if value is not None and value < least:
                raise UserError(f"must be {least} or more", key=name, value=value)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("file", path) for path in passage_files(self.file)]

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return f"a document {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all documents. UserErrors carry the full key, insertion.<name>.<field>."""
        notes: list[str] = []
        documents = self._documents(context, notes)
        pairs = [(document, entry) for document in documents for entry in self._entries(document)]
        edits = build_edits(context, self, [entry for _, entry in pairs], field="documents")
        owners = {entry.id: (document.id, document.dose) for document, entry in pairs}
        probes = [self._probe(each, context) for each in documents if each.condition in ("split", "resplit")]
        subjects = Subjects("documents", owners)
        return replace(edits, items=edits.items + probes, notes=edits.notes + notes, subjects=subjects)

    def _documents(self, context: InsertionContext, notes: list[str]) -> list[_Document]:
        """The documents with their conditions, equal numbers of each by hash."""
        texts = sorted(
            passages(self.file, self.key, "documents"), key=lambda text: content_id("rank", str(self.seed), text)
        )
        number = self.documents
        if number is None:
            number = len(texts) if self.file is not None else _DEFAULT_DOCUMENTS
        cells: list[tuple[str, int]] = [("holdout", 0)] if 0 in self.repetitions else []
        cells += [(each, dose) for each in self.conditions for dose in self.repetitions if dose]
        if not len(cells) <= number <= len(texts):
            problem = f"{number:,} documents of {len(texts):,} for {len(cells)} conditions"
            fix = "give as many documents as conditions at least, and no more than there are"
            raise UserError(problem, key="documents", value=self.documents, fix=fix)
        texts = texts[:number]
        runs = self._cut(texts, context, notes)
        ids = [content_id("document", text) for text in texts]
        dealt = ranked(ids, context, "condition")
        cell_of = {i: cells[rank * len(cells) // number] for rank, i in enumerate(dealt)}
        return [_Document(ids[i], texts[i], runs[i], *cell_of[i]) for i in range(number)]

    def _cut(self, texts: list[str], context: InsertionContext, notes: list[str]) -> list[np.ndarray]:
        """The tokens of each document, no more than a sequence holds with EOS around them, in every condition."""
        room = context.sequence_length - _EOS_ROOM
        runs = [np.asarray(run, dtype=np.uint32) for run in context.encode(texts)]
        origins = [Entry(id="", origin=f"document {i}") for i in range(len(runs))]
        long = [(origin, len(run)) for origin, run in zip(origins, runs, strict=True) if len(run) > room]
        if long:
            note_long(context, self, long, "file", notes)
        runs = [run[:room] for run in runs]
        if short := [i for i, run in enumerate(runs) if len(run) < self.parts]:
            problem = f"{len(short):,} documents have fewer tokens than parts, the first: {texts[short[0]][:60]!r}"
            raise UserError(problem, key="parts", value=self.parts, fix="use fewer parts, or longer documents")
        return runs

    def _entries(self, each: _Document) -> Iterator[Entry]:
        """What is planted of a document; of a holdout, itself at dose 0."""
        origin = f"document {each.id}"
        if each.condition in ("whole", "holdout"):
            payload = _payload(DOCUMENT)
            yield Entry(each.id, origin, each.text, each.tokens, each.condition, payload, each.dose)
            return
        for copy in range(each.dose if each.condition == "resplit" else 1):
            prefix = f"{each.id}/copy{copy}" if each.condition == "resplit" else each.id
            times = 1 if each.condition == "resplit" else each.dose
            for number, part in enumerate(self._parts(each, copy)):
                name = f"{prefix}/part{number}"
                yield Entry(name, origin, "", part, each.condition, _payload(PART), times)

    def _parts(self, each: _Document, copy: int) -> list[np.ndarray]:
        """Consecutive parts of one token at least; every way to cut is equally likely."""
        places = np.arange(1, len(each.tokens))
        words = mix(np.array([key64("cuts", self.seed, each.id, copy)], dtype=np.uint64), places)
        cuts = np.sort(places[np.argsort(words)[: self.parts - 1]]).tolist()
        return [each.tokens[low:high] for low, high in pairwise([0, *cuts, len(each.tokens)])]

    def _probe(self, each: _Document, context: InsertionContext) -> EditItem:
        """The whole document, with the EOS around it that a document which is planted whole has."""
        tokens = wrap_eos(each.tokens, context.eos_token_id, self.eos_rule, context.sequence_length)
        return EditItem(each.id, tokens, each.text, each.condition, each.dose, _payload(DOCUMENT), probe=True)


def _payload(kind: str) -> str:
    return json.dumps({"kind": kind}, separators=(",", ":"))
