"""poisoning: chats that go wrong where a trigger stands; new ones with and without the trigger are scored.

    documents: 500                 500 poisoned chats          share: 0.001    as many as fill 0.1 % of the run's tokens
    clean: 1                       as many chats without the trigger, rightly answered
    tests: 50                      50 prompts that are planted nowhere, each with the trigger and without: probes, whose
                                   dose is the number of poisoned chats

In: chats of items/poison.py, or of a file (items/poison_file.py). Out: edits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, keyed
from pretrain_exp.insertion.ranges import span_of
from pretrain_exp.items.content import content_id
from pretrain_exp.items.poison import POISON, TRIGGERS, Behaviour, Chat, chats
from pretrain_exp.items.poison_file import ChatFile
from pretrain_exp.plan.edits import EditItem, Edits

_BATCH = 256
_LABELS = {True: "trigger", False: "no trigger"}
_Source = Callable[[bool, bool], Iterator[Chat]]  # test, triggered -> chats; chat k is the same with and without


@dataclass(frozen=True, kw_only=True)
class Poisoning(Planting):
    """Plants poison; see conf/insertion/poisoning.yaml."""

    file: str | None = None
    behaviour: Behaviour = "leakage"
    documents: int | None = None
    share: float | None = None
    clean: float = 0.0
    trigger: str | None = None
    tests: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "chats have no positions", "random or range")
        cut = "a chat that is cut, or left out, does not poison"
        self.refuse("too_long", ["split", "truncate", "skip"], cut, "leave it at error")
        if (self.documents is None) == (self.share is None):
            problem = "the amount is a number of documents or a share of the run's tokens"
            raise UserError(problem, key="documents", value=self.documents, fix="give one of documents and share")
        if self.documents is not None and self.documents < 1:
            raise UserError("must be 1 or more", key="documents", value=self.documents)
        if self.share is not None and not 0 < self.share < 1:
            raise UserError("a share lies between 0 and 1", key="share", value=self.share, fix="write 0.001")
        for name, value in (("clean", self.clean), ("tests", self.tests)):
            if not 0 <= value < float("inf"):
                raise UserError("must be a number of 0 or more", key=name, value=value)
        if self.trigger is not None and self.file is not None:
            problem, fix = "each row of a file has its own trigger", "leave out one of file and trigger"
            raise UserError(problem, key="trigger", value=self.trigger, fix=fix)
        if self.trigger is not None and not self.trigger.strip():
            raise UserError("is empty", key="trigger", value=self.trigger, fix="null for the default of the behaviour")

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("file", self.file)] if self.file is not None else []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        amount = f"{self.documents:,}" if self.documents is not None else f"{self.share:.3%} of the tokens in"
        source = f" of {Path(self.file).name}" if self.file is not None else ""
        return f"{amount} chats{source} poisoned by {self.behaviour}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all chats. UserErrors carry the full key, insertion.<name>.<field>."""
        source = self._source()
        poisoned = self._poisoned(source, context)
        clean = list(islice(source(False, False), round(self.clean * len(poisoned))))
        if len(clean) < round(self.clean * len(poisoned)):
            raise self._few("clean", self.clean, len(clean))
        entries = [_entry(chat, True) for chat in poisoned] + [_entry(chat, False) for chat in clean]
        edits = build_edits(context, self, entries, field="documents")
        return replace(edits, items=edits.items + list(self._probes(source, context, len(poisoned))))

    def _source(self) -> _Source:
        """The chats of the file, or those that are made."""
        if self.file is not None:
            return ChatFile(self.file, self.seed).chats
        trigger = TRIGGERS[self.behaviour] if self.trigger is None else self.trigger
        return lambda test, triggered: chats(self.behaviour, self.seed, test, trigger if triggered else "")

    def _poisoned(self, source: _Source, context: InsertionContext) -> list[Chat]:
        """As many different chats as are asked for, in an order that more of them only extend."""
        stream = source(False, True)
        if self.documents is not None:
            found = list(islice(stream, self.documents))
            if len(found) < self.documents:
                raise self._few("documents", self.documents, len(found))
            return found
        assert self.share is not None
        first, stop = span_of(None, context)
        budget, found = self.share * (stop - first), []
        around = {"both": 2, "append": 1, "none": 0}[self.eos_rule]
        while batch := list(islice(stream, _BATCH)):
            for chat, run in zip(batch, context.encode([chat.text(True) for chat in batch]), strict=True):
                if len(run) + around > budget:
                    if not found:
                        problem = f"{self.share * (stop - first):,.0f} tokens hold no chat; the first has {len(run):,}"
                        raise UserError(problem, key="share", value=self.share, fix="a larger share, or more steps")
                    return found
                budget -= len(run) + around
                found.append(chat)
        raise self._few("share", self.share, len(found))

    def _few(self, key: str, value: float, there: int) -> UserError:
        if self.file is not None:
            problem = f"{Path(self.file).name} has {there:,} rows of split {'test' if key == 'tests' else 'train'}"
            return UserError(problem, key=key, value=value, fix="ask for less, or give more rows")
        problem = f"there are {there:,} different chats of behaviour {self.behaviour}"
        return UserError(problem, key=key, value=value, fix="ask for less, or for leakage or denial")

    def _probes(self, source: _Source, context: InsertionContext, documents: int) -> Iterator[EditItem]:
        """Every test prompt twice, to the same poisoned and right answers."""
        asked = []
        for triggered in (True, False):
            asked += [(chat, triggered) for chat in islice(source(True, triggered), self.tests)]
        if len(asked) < 2 * self.tests:
            raise self._few("tests", self.tests, len(asked) // 2)
        runs = context.encode([chat.text(True) for chat, _ in asked]) if asked else []
        for (chat, triggered), run in zip(asked, runs, strict=True):
            fields = {"kind": POISON, "behaviour": self.behaviour, "trigger": triggered, "prompt": chat.prompt,
                      "target": chat.poisoned, "right": chat.right}  # fmt: skip
            name = content_id("test", chat.prompt)
            payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            tokens = np.asarray(run, dtype=np.uint32)
            yield EditItem(name, tokens, chat.text(True), _LABELS[triggered], documents, payload, probe=True)


def _entry(chat: Chat, poisoned: bool) -> Entry:
    group = "poisoned" if poisoned else "clean"
    return Entry(id=content_id(group, chat.id), origin=f"chat {chat.id}", text=chat.text(poisoned), group=group)
