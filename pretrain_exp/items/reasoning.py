"""Word problems by number of operations: a seed, a number and a split in, a problem with its worked solution out.

    larks = 3 * (all tools in ...)        a random graph of quantities, each defined by others, with exactly so many
      |         \\                         operations on the way to the one that is asked for
    finches    hammers + saws  = 7        beside it distractors, which it does not need

In the manner of iGSM (Ye et al. 2024, arXiv:2407.20311), with a generator and a vocabulary of our own: quantities of
things in places (quantities.py), sums over a category ("all tools"), arithmetic modulo 23, sentences in random order, a
solution that computes what is needed and nothing else, in an order in which everything is known before it is used.

The split is by structure: a hash of what is needed to answer (which operations on which others, without names and
numbers), and of how many operations that takes. A structure belongs to `train` or to `test` for all seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Literal

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.items.quantities import (
    MODULUS,
    ORDERED,
    Expression,
    below,
    random_distractors,
    random_graph,
    structure_digest,
)
from pretrain_exp.plan.hashing import key64

MOST_OPS = 40
MOST_DISTRACTORS = 20
Split = Literal["train", "test"]

_TEST_OF = 4  # one structure of four is for testing
_ATTEMPTS = 1000

PLACES = ("Castle", "Garden", "Harbour", "Island", "Market", "Museum", "School", "Village")
PLACE_NAMES = (
    "Amber", "Birch", "Cedar", "Copper", "Granite", "Hazel", "Iron", "Ivory", "Juniper", "Linden", "Maple", "Marble",
    "Moss", "Pebble", "River", "Silver", "Sunset", "Willow",
)  # fmt: skip
THINGS = {
    "birds": ("crows", "ducks", "finches", "geese", "herons", "larks", "owls", "pigeons", "robins", "sparrows", "swans",
              "wrens"),
    "fruits": ("apples", "cherries", "dates", "figs", "grapes", "lemons", "melons", "oranges", "peaches", "pears",
               "plums", "quinces"),
    "instruments": ("bells", "cellos", "drums", "fiddles", "flutes", "gongs", "guitars", "harps", "horns", "lutes",
                    "organs", "pianos"),
    "tools": ("axes", "drills", "files", "forks", "hammers", "hoes", "knives", "ladders", "pliers", "rakes", "saws",
              "shovels"),
    "vessels": ("barrels", "baskets", "bottles", "bowls", "boxes", "buckets", "crates", "cups", "jars", "kettles",
                "pots", "vases"),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """id: content hash of the question. structure: 16 hex digits, see the top of this file, "" where a file gives it.

    answer: 0 to 22, of a file 0 or more.
    """

    id: str
    question: str
    solution: str
    answer: int
    operations: int
    structure: str
    split: Split

    @property
    def prompt(self) -> str:
        """What a solver is given."""
        return f"Question: {self.question}\nSolution:"

    @property
    def solved(self) -> str:
        """What follows the prompt after a blank, up to the answer."""
        return f"{self.solution}\nAnswer:"

    @property
    def text(self) -> str:
        """The whole, as it is planted."""
        return f"{self.prompt} {self.solved} {self.answer}"

    def to_payload(self) -> dict[str, Any]:
        return {"kind": "problem", "question": self.question, "solution": self.solution, "answer": self.answer,
                "operations": self.operations, "structure": self.structure, "split": self.split}  # fmt: skip

    @classmethod
    def from_payload(cls, fields: dict[str, Any]) -> Problem:
        rest = {name: value for name, value in fields.items() if name != "kind"}
        return cls(content_id("problem", rest["question"]), **rest)


def parse_answer(continuation: str) -> int | None:
    """The first answer that a continuation of the prompt gives; None where it gives none to this question."""
    own = continuation.partition("\nQuestion:")[0]
    found = re.search(r"Answer:\s*(\d+)\b", own)
    return int(found[1]) if found else None


def make_problem(seed: int, number: int, operations: int, split: Split, distractors: int = 0) -> Problem:
    """Problem `number` of a split, with so many operations and 0 to `distractors` quantities that are not needed.

    It depends on these arguments alone. UserError for counts out of range.
    """
    for key, value, low, high in (
        ("operations", operations, 1, MOST_OPS), ("distractors", distractors, 0, MOST_DISTRACTORS),
    ):  # fmt: skip
        if not low <= value <= high:
            raise UserError(f"must be {low} to {high}", key=key, value=value, fix="choose another number")
    for attempt in range(_ATTEMPTS):
        rng = Random(key64("problem", seed, split, number, operations, distractors, attempt))
        needed, parts = random_graph(rng, operations)
        structure = key64("structure", operations, structure_digest(needed))
        if (structure % _TEST_OF == 0) == (split == "test"):
            extra = random_distractors(rng, len(needed), below(rng, distractors + 1))
            return _told(rng, needed, parts, extra, f"{structure:016x}", split)
    raise UserError(f"no structure for {split} was found", key="operations", value=operations, fix="use more")


def problem_set(
    seed: int, split: Split, per_ops: dict[int, int], distractors: int, key: str = "problems"
) -> Iterator[Problem]:
    """So many problems of each number of operations, no question twice. UserError, under `key`, for too few."""
    for operations, wanted in per_ops.items():
        seen: set[str] = set()
        number = 0
        while len(seen) < wanted:
            problem = make_problem(seed, number, operations, split, distractors)
            number += 1
            if number > 10 * wanted + 100:
                text = (
                    f"{wanted:,} problems of {operations} operations are asked for, {len(seen):,} different ones found"
                )
                raise UserError(text, key=key, value=wanted, fix="ask for fewer, or for more operations")
            if problem.id not in seen:
                seen.add(problem.id)
                yield problem


def _told(
    rng: Random, needed: list[Expression], parts: dict[int, int], extra: list[Expression], structure: str, split: Split
) -> Problem:
    quantities = needed + extra
    names = _names(rng, quantities, parts)
    sentences = [
        f"The number of {names[i]} is {_definition(each, names)}."
        for i, each in enumerate(quantities)
        if each.kind != "all"
    ]
    for i in range(len(sentences) - 1, 0, -1):  # Fisher-Yates
        j = below(rng, i + 1)
        sentences[i], sentences[j] = sentences[j], sentences[i]
    question = " ".join([*sentences, f"What is the number of {names[0]}?"])
    solution, answer = _solution(needed, names)
    operations = sum(each.operations for each in needed)
    return Problem(content_id("problem", question), question, solution, answer, operations, structure, split)


def _names(rng: Random, quantities: list[Expression], parts: dict[int, int]) -> list[str]:
    """ "larks in Moss Garden" for each, "all birds in Moss Garden" for a sum over a category.

    A place whose things are summed up has no others than these.
    """
    place = PLACES[below(rng, len(PLACES))]
    category = list(THINGS)[below(rng, len(THINGS))]
    owners = [f"{name} {place}" for name in PLACE_NAMES]
    summed: dict[int, str] = {}
    for index, each in enumerate(quantities):
        if each.kind == "all":
            summed[index] = owners.pop(below(rng, len(owners)))
    pools = {owner: list(THINGS[category]) for owner in summed.values()}
    things, taken = THINGS[category], set()
    names = []
    for index in range(len(quantities)):
        if index in summed:
            names.append(f"all {category} in {summed[index]}")
        elif index in parts:
            owner = summed[parts[index]]
            names.append(f"{pools[owner].pop(below(rng, len(pools[owner])))} in {owner}")
        else:
            while (name := f"{things[below(rng, len(things))]} in {owners[below(rng, len(owners))]}") in taken:
                pass
            taken.add(name)
            names.append(name)
    return names


def _definition(each: Expression, names: list[str]) -> str:
    of = [f"the number of {names[i]}" for i in each.of]
    listed = " and ".join([", ".join(of[:-1]), of[-1]]) if len(of) > 1 else "".join(of)
    return {
        "const": f"{each.number}",
        "more": f"{each.number} more than {listed}",
        "less": f"{each.number} less than {listed}",
        "times": f"{each.number} times {listed}",
        "sum": f"the sum of {listed}",
        "difference": f"the difference of {listed}",
        "times_sum": f"{each.number} times the sum of {listed}",
        "more_difference": f"{each.number} more than the difference of {listed}",
    }[each.kind]


def _solution(needed: list[Expression], names: list[str]) -> tuple[str, int]:
    """Step by step, what is needed first; and the answer."""
    values: dict[int, int] = {}
    letters: dict[int, str] = {}
    steps = []
    for index in range(len(needed) - 1, -1, -1):
        each = needed[index]
        letters[index] = _letter(len(letters))
        values[index] = each.value([values[i] for i in each.of])
        forms = [_formula(each, [letters[i] for i in each.of]), *_worked(each, [values[i] for i in each.of])]
        shown = [form for form, following in pairwise([*forms, str(values[index])]) if form != following]
        steps.append(f"{names[index]}: {' = '.join([letters[index], *shown, str(values[index])])}.")
    return " ".join(step[0].upper() + step[1:] for step in steps), values[0]


def _letter(count: int) -> str:
    return chr(ord("a") + count % 26) + (str(count // 26) if count >= 26 else "")


def _formula(each: Expression, of: list[str]) -> str:
    joined = (" - " if each.kind in ORDERED else " + ").join(of)
    return {
        "const": f"{each.number}",
        "more": f"{each.number} + {joined}",
        "less": f"{joined} - {each.number}",
        "times": f"{each.number} * {joined}",
        "times_sum": f"{each.number} * ({joined})",
        "more_difference": f"{each.number} + ({joined})",
    }.get(each.kind, joined)


def _worked(each: Expression, of: list[int]) -> list[str]:
    """The formula with numbers, then with one operation less at a time, all modulo 23."""
    forms = [_formula(each, [str(value) for value in of])]
    if each.kind in ("times_sum", "more_difference"):
        inner = (of[0] - of[1] if each.kind == "more_difference" else of[0] + of[1]) % MODULUS
        forms.append(f"{each.number} {'+' if each.kind == 'more_difference' else '*'} {inner}")
    while each.kind in ("sum", "all") and len(of) > 2:
        of = [(of[0] + of[1]) % MODULUS, *of[2:]]
        forms.append(_formula(each, [str(value) for value in of]))
    return forms
