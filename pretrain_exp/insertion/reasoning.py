"""reasoning: worked word problems by number of operations, planted; others are scored and never planted.

    train   `problems` of min_ops to max_ops operations, in turn         planted `repetitions` times each
    test    `test_per_ops` of each number of operations to test_max_ops  probes: scored by eval=reasoning, dose 0

No structure of a test problem is the structure of a problem that is planted (items/reasoning.py). Or a file with both
splits, taken whole (items/reasoning_file.py). Out: edits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, check_repetitions, keyed
from pretrain_exp.insertion.doses import times
from pretrain_exp.items.reasoning import MOST_DISTRACTORS, MOST_OPS, Problem, problem_set
from pretrain_exp.items.reasoning_file import read_problems
from pretrain_exp.plan.edits import EditItem, Edits

_MADE = ("problems", "min_ops", "max_ops", "distractors", "test_per_ops", "test_max_ops", "seed")  # without a file


@dataclass(frozen=True, kw_only=True)
class Reasoning(Planting):
    """Plants worked problems; see conf/insertion/reasoning.yaml."""

    file: str | None = None
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
        self._refuse_what_a_file_says()

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("file", self.file)] if self.file is not None else []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        if self.file is not None:
            return f"the worked problems of {Path(self.file).name} {times(self.repetitions)}"
        span = f"{self.min_ops} to {self.max_ops}" if self.max_ops > self.min_ops else f"{self.min_ops}"
        return f"{self.problems:,} worked problems of {span} operations {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all problems. UserErrors carry the full key, insertion.<name>.<field>."""
        planted, scored = self._made() if self.file is None else read_problems(self.file).values()
        edits = build_edits(
            context, self, [self._entry(each) for each in planted], field="problems" if self.file is None else "file"
        )
        return replace(edits, items=edits.items + list(_probes(scored, context)))

    def _made(self) -> tuple[Iterable[Problem], Iterable[Problem]]:
        """What is planted and what is scored."""
        counts = range(self.min_ops, self.max_ops + 1)
        train = {n: len(range(k, self.problems, len(counts))) for k, n in enumerate(counts)}
        test = dict.fromkeys(range(self.min_ops, (self.test_max_ops or self.max_ops) + 1), self.test_per_ops)
        return (problem_set(self.seed, "train", train, self.distractors),
                problem_set(self.seed, "test", test, self.distractors, "test_per_ops"))  # fmt: skip

    def _entry(self, problem: Problem) -> Entry:
        group, origin = f"train {problem.operations} ops", f"problem {problem.id}"
        return Entry(id=problem.id, origin=origin, text=problem.text, group=group, repetitions=self.repetitions)

    def _refuse_what_a_file_says(self) -> None:
        """UserError where the problems come from a file and others are described."""
        standard = {field.name: field.default for field in fields(self)}
        other = [name for name in _MADE if getattr(self, name) != standard[name]]
        if self.file is not None and other:
            problem = f"{', '.join(other)} say what is made, and a file is taken whole"
            back = " ".join(f"{name}={'null' if standard[name] is None else standard[name]}" for name in other)
            raise UserError(problem, key=other[0], value=getattr(self, other[0]), fix=f"leave out, or set back: {back}")


def _probes(problems: Iterable[Problem], context: InsertionContext) -> Iterator[EditItem]:
    scored = list(problems)
    encoded = context.encode([problem.text for problem in scored]) if scored else []
    for problem, tokens in zip(scored, encoded, strict=True):
        payload = json.dumps(problem.to_payload(), ensure_ascii=False, separators=(",", ":"))
        group, run = f"test {problem.operations} ops", np.asarray(tokens, dtype=np.uint32)
        yield EditItem(problem.id, run, problem.text, group, 0, payload, probe=True)
