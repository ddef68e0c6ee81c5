"""Word problems read back from their text by other code: every answer, every step, every operation."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.errors import UserError
from pretrain_exp.items.reasoning import MOST_OPS, THINGS, Problem, make_problem, parse_answer, problem_set

NAME = r"(?:[Aa]ll )?\w+ in \w+ \w+"
CATEGORY = {thing: category for category, things in THINGS.items() for thing in things}


class Reader:
    """Solves a question from its sentences alone: recursively, in whole numbers, reduced at the end."""

    def __init__(self, question: str) -> None:
        *sentences, asked = re.split(r"(?<=[.]) ", question)
        self.told = dict(re.fullmatch(rf"The number of ({NAME}) is (.+)\.", s).groups() for s in sentences)
        assert len(self.told) == len(sentences)
        self.asked = re.fullmatch(rf"What is the number of ({NAME})\?", asked)[1]
        self.operations: dict[str, int] = {}  # of what was needed

    def solve(self, name: str | None = None) -> int:
        name = name or self.asked
        if name not in self.told:
            category, place = re.fullmatch(r"all (\w+) in (.+)", name).groups()
            parts = [each for each in self.told if each.endswith(f" in {place}")]
            assert {CATEGORY[part.split()[0]] for part in parts} == {category}
            self.operations[name] = len(parts) - 1
            return sum(self.solve(part) for part in parts)
        definition = self.told[name]
        of = [self.solve(each) for each in re.findall(rf"the number of ({NAME})", definition)]
        number = int(found[0]) if (found := re.match(r"\d+", definition)) else 0
        words = re.sub(rf"the number of {NAME}", "_", definition)
        words = re.sub(r"^\d+", "n", words)
        value, operations = {
            "n": (lambda: number, 0),
            "n more than _": (lambda: number + of[0], 1),
            "n less than _": (lambda: of[0] - number, 1),
            "n times _": (lambda: number * of[0], 1),
            "the sum of _ and _": (lambda: of[0] + of[1], 1),
            "the sum of _, _ and _": (lambda: of[0] + of[1] + of[2], 2),
            "the difference of _ and _": (lambda: of[0] - of[1], 1),
            "n times the sum of _ and _": (lambda: number * (of[0] + of[1]), 2),
            "n more than the difference of _ and _": (lambda: number + of[0] - of[1], 2),
        }[words]
        self.operations[name] = operations
        return value()


def calculate(formula: str) -> int:
    assert re.fullmatch(r"[\d+*() -]+", formula)
    return eval(formula)


def check(problem: Problem) -> None:
    reader = Reader(problem.question)
    assert reader.solve() % 23 == problem.answer
    assert sum(reader.operations.values()) == problem.operations
    letters: dict[str, int] = {}
    steps = re.findall(rf"({NAME}): ([^.]+)\.", problem.solution)
    assert "".join(f"{name}: {chain}. " for name, chain in steps).strip() == problem.solution
    names = [name[0].lower() + name[1:] for name, _ in steps]
    assert set(names) == set(reader.operations)  # what is needed, all of it and nothing else
    assert len(names) == len(set(names))
    assert names[-1] == reader.asked
    for name, (_, chain) in zip(names, steps, strict=True):
        letter, *forms = chain.split(" = ")
        assert letter not in letters
        for form in forms:
            value = calculate(re.sub(r"[a-z]\d*", lambda m: str(letters[m[0]]), form))
            assert value % 23 == int(forms[-1])
        assert Reader(problem.question).solve(name) % 23 == int(forms[-1])
        letters[letter] = int(forms[-1])
        assert int(forms[-1]) in range(23)
    assert int(forms[-1]) == problem.answer


@given(
    seed=st.integers(0, 2**32), number=st.integers(0, 10**6), operations=st.integers(1, 14),
    distractors=st.integers(0, 8), split=st.sampled_from(["train", "test"]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_every_problem_is_solved_right(seed, number, operations, distractors, split):
    problem = make_problem(seed, number, operations, split, distractors)
    check(problem)
    assert problem == make_problem(seed, number, operations, split, distractors)
    assert (problem.split, problem.operations) == (split, operations)
    assert parse_answer(problem.text.removeprefix(problem.prompt)) == problem.answer
    assert Problem.from_payload(problem.to_payload()) == problem


def test_the_hardest():
    for number in range(3):
        check(make_problem(0, number, MOST_OPS, "test", 20))


def test_every_kind_of_sentence_is_told_and_answers_are_spread():
    problems = [make_problem(0, i, 1 + i % 6, "train", 3) for i in range(600)]
    words = {re.sub(rf"the number of {NAME}", "_", re.sub(r"\b\d+\b", "n", d))
             for p in problems for d in Reader(p.question).told.values()}  # fmt: skip
    assert len(words) == 9
    assert any("all " in p.question for p in problems)
    assert {p.answer for p in problems} == set(range(23))
    told = [Reader(p.question) for p in problems]
    more = [len(r.told) - sum(name in r.told for name in r.operations) for r in told if r.solve() is not None]
    assert set(more) == {0, 1, 2, 3}


@pytest.mark.parametrize("operations", [*range(1, 11), 20])
def test_no_structure_is_in_both_splits_and_both_have_some(operations):
    found = {
        split: {make_problem(seed, i, operations, split, seed).structure for seed in (0, 1) for i in range(150)}
        for split in ("train", "test")
    }
    assert not found["train"] & found["test"]
    assert min(len(each) for each in found.values()) >= (2 if operations == 1 else 5)
    assert all((int(each, 16) % 4 == 0) == (split == "test") for split, of in found.items() for each in of)


def test_a_structure_knows_neither_names_nor_numbers():
    """Problems of one structure have solutions that are the same up to names, numbers and order."""
    shapes: dict[str, set[tuple[str, ...]]] = {}
    for i in range(400):
        problem = make_problem(3, i, 2, "train")
        chains = re.findall(rf"{NAME}: (\w+ = [^=.]+)", problem.solution)
        shape = sorted(re.sub(r"\d+", "n", re.sub(r"\b[a-z]\b", "x", chain)) for chain in chains)
        shapes.setdefault(problem.structure, set()).add(tuple(shape))
    assert len(shapes) > 20
    assert max(len(each) for each in shapes.values()) <= 2  # "all" and sums differ in kind; shared leaves may be fewer
    assert len({p.structure for p in (make_problem(s, 0, 1, "train") for s in range(60))}) == 4


def test_sets_hold_what_is_asked_and_no_question_twice():
    problems = list(problem_set(0, "test", {1: 30, 2: 5, 4: 0}, 0))
    assert [p.operations for p in problems] == [1] * 30 + [2] * 5
    assert len({p.id for p in problems}) == len({p.question for p in problems}) == 35
    assert problems[:10] == list(problem_set(0, "test", {1: 10}, 0))


@pytest.mark.parametrize(
    ("continuation", "answer"),
    [
        (" a = 5. \nAnswer: 7", 7),
        (" Answer:12\nAnswer: 3", 12),
        (" a = 5.", None),
        (" a = 5.\n\nQuestion: x\nSolution: y\nAnswer: 4", None),
        ("Answer: seven", None),
        ("Answer: 7 \n\nQuestion: ...", 7),
        ("", None),
    ],
)
def test_answers_are_parsed(continuation, answer):
    assert parse_answer(continuation) == answer


@pytest.mark.parametrize(
    ("operations", "distractors", "says"), [(0, 0, "operations"), (41, 0, "operations"), (1, 21, "distractors")]
)
def test_counts_out_of_range(operations, distractors, says):
    with pytest.raises(UserError, match=says):
        make_problem(0, 0, operations, "train", distractors)
