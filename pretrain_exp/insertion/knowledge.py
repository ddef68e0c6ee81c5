"""knowledge: fictional facts in paraphrases, at doses given to seeded groups; their probes are scored, never planted.

    fact  dose 5, 2 paraphrases  ->  text 0 three times, text 1 twice       planted
                                 ->  its probes, each with dose 5            scored (eval=knowledge)
    fact  dose 0                 ->  holdout: text 0 and probes of dose 0    scored only

In: facts invented by items/facts.py, or a file of texts and probes. Out: edits; an item's id begins with its fact's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, keyed
from pretrain_exp.insertion.doses import deal, levels, times
from pretrain_exp.items.content import content_id
from pretrain_exp.items.facts import MOST_FACTS, Fact, FactWorld, read_facts
from pretrain_exp.plan.edits import EditItem, Edits, Subjects

_DEFAULT_FACTS = 64


@dataclass(frozen=True, kw_only=True)
class Knowledge(Planting):
    """Plants facts; see conf/insertion/knowledge.yaml."""

    file: str | None = None
    facts: int | None = None
    paraphrases: int | None = None
    repetitions: int | list[int]
    fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "facts have no positions", "random or range; or plant texts with add_texts")
        cut = "a fact in pieces, or left out, is not read as often as its probes say"
        self.refuse("too_long", ["split", "truncate", "skip"], cut, "leave it at error")
        for name, value, most in (("facts", self.facts, MOST_FACTS), ("paraphrases", self.paraphrases, None)):
            if value is not None and not 1 <= value <= (most or value):
                limit = "1 or more" if most is None else f"1 to {most:,}"
                raise UserError(f"must be {limit}", key=name, value=value, fix="give another number, or null")
        levels(self.repetitions, self.fraction)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("file", self.file)] if self.file is not None else []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return f"a fictional fact {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all facts. UserErrors carry the full key, insertion.<name>.<field>."""
        facts = self._dealt(context)
        edits = build_edits(context, self, [entry for fact in facts for entry in _entries(*fact)], field="facts")
        probes = list(_probes(facts, context))
        owners = {fact.text_id(i): (fact.id, dose) for fact, dose in facts for i in range(len(fact.texts))}
        return replace(edits, items=edits.items + probes, subjects=Subjects("facts", owners))

    def _dealt(self, context: InsertionContext) -> list[tuple[Fact, int]]:
        """Facts with their doses, in as many paraphrases as are planted (one where none is)."""
        if self.file is None:
            world, number = FactWorld(self.seed), self.facts or _DEFAULT_FACTS
            ids = [world.fact(i, 1).id for i in range(number)]
            doses = self._doses(ids, context)
            texts = [max(1, min(dose, self.paraphrases or dose)) for dose in doses]
            return [(world.fact(i, texts[i]), doses[i]) for i in range(number)]
        facts = read_facts(self.file)
        if self.facts is not None:
            if self.facts > len(facts):
                problem, fix = f"{self.file} holds {len(facts):,} facts", "lower the number, or null for all"
                raise UserError(problem, key="facts", value=self.facts, fix=fix)
            facts = sorted(facts, key=lambda fact: content_id("rank", str(self.seed), fact.id))[: self.facts]
        doses = self._doses([fact.id for fact in facts], context)
        return [
            (replace(fact, texts=fact.texts[: max(1, min(dose, self.paraphrases or dose))]), dose)
            for fact, dose in zip(facts, doses, strict=True)
        ]

    def _doses(self, ids: list[str], context: InsertionContext) -> list[int]:
        return [int(dose) for dose in deal(ids, self.repetitions, self.fraction, context)]


def _group(dose: int) -> str:
    return f"{dose}x" if dose else "holdout"


def _entries(fact: Fact, dose: int) -> Iterator[Entry]:
    """The texts of a fact; the copies are dealt to them in turn, so the first has most."""
    for number, text in enumerate(fact.texts):
        copies = len(range(number, dose, len(fact.texts)))
        origin = f"text {number} of fact {fact.id}"
        yield Entry(id=fact.text_id(number), origin=origin, text=text, group=_group(dose), repetitions=copies)


def _probes(facts: list[tuple[Fact, int]], context: InsertionContext) -> Iterator[EditItem]:
    """The probes of all facts, each with the dose of its fact."""
    asked = [(fact, number, dose) for fact, dose in facts for number in range(len(fact.probes))]
    encoded = context.encode([fact.probes[number].text for fact, number, _ in asked])
    for (fact, number, dose), tokens in zip(asked, encoded, strict=True):
        probe = fact.probes[number]
        fields = {"kind": "probe", "fact": fact.id, "type": probe.type, "prompt": probe.prompt, "target": probe.target}
        yield EditItem(
            fact.probe_id(number),
            np.asarray(tokens, dtype=np.uint32),
            probe.text,
            _group(dose),
            dose,
            json.dumps(fields, ensure_ascii=False, separators=(",", ":")),
            probe=True,
        )
