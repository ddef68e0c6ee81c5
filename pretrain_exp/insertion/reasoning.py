"""reasoning: worked word problems by number of operations, planted; others are scored and never planted.

    train   `problems` of min_ops to max_ops operations, in turn         planted `repetitions` times each
    test    `test_per_ops` of each number of operations to test_max_ops  probes: scored by eval=reasoning, dose 0

No structure of a test problem is the structure of a problem that is planted (items/reasoning.py). Out: edits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, check_repetitions, keyed
from pretrain_exp.insertion.doses import times
from pretrain_exp.items.reasoning import MOST_DISTRACTORS, MOST_OPS, problem_set
from pretrain_exp.plan.edits import EditItem, Edits


@dataclass(frozen=True, kw_only=True)
class Reasoning(Planting):
    """Plants worked problems; see conf/insertion/reasoning.yaml."""

    problems: int = 1000
    min_ops: int = 1
    max_ops: int = 4
    distractors: int = 2
    repetitions: float = 1.0
    test_per_ops: int = 50
    test_max_ops: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "problems have no positions", "random or range")
        cut = "a problem without its end has no answer"
        self.refuse("too_long", ["split", "truncate"], cut, "skip, or leave it at error")
        check_repetitions(self.repetitions)
        for name, low, high in (
            ("problems", 1, 10**8), ("min_ops", 1, MOST_OPS), ("max_ops", self.min_ops, MOST_OPS),
            ("distractors", 0, MOST_DISTRACTORS), ("test_per_ops", 0, 10**6), ("test_max_ops", self.min_ops, MOST_OPS),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"must be {low:,} to {high:,}", key=name, value=value, fix="choose another number")

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        span = f"{self.min_ops} to {self.max_ops}" if self.max_ops > self.min_ops else f"{self.min_ops}"
        return f"{self.problems:,} worked problems of {span} operations {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all problems. UserErrors carry the full key, insertion.<name>.<field>."""
        edits = build_edits(context, self, list(self._entries()), field="problems")
        return replace(edits, items=edits.items + list(self._probes(context)))

    def _entries(self) -> Iterator[Entry]:
        counts = range(self.min_ops, self.max_ops + 1)
        per_ops = [len(range(k, self.problems, len(counts))) for k in range(len(counts))]
        for problem in problem_set(self.seed, "train", dict(zip(counts, per_ops, strict=True)), self.distractors):
            group = f"train {problem.operations} ops"
            origin = f"problem {problem.id}"
            yield Entry(id=problem.id, origin=origin, text=problem.text, group=group, repetitions=self.repetitions)

    def _probes(self, context: InsertionContext) -> Iterator[EditItem]:
        per_ops = dict.fromkeys(range(self.min_ops, (self.test_max_ops or self.max_ops) + 1), self.test_per_ops)
        problems = list(problem_set(self.seed, "test", per_ops, self.distractors))
        encoded = context.encode([problem.text for problem in problems]) if problems else []
        for problem, tokens in zip(problems, encoded, strict=True):
            payload = json.dumps(problem.to_payload(), ensure_ascii=False, separators=(",", ":"))
            group = f"test {problem.operations} ops"
            run = np.asarray(tokens, dtype=np.uint32)
            yield EditItem(problem.id, run, problem.text, group, 0, payload, probe=True)
