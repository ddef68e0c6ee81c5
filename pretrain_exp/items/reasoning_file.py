"""Word problems of a file: {"question", "solution", "answer", "operations", "split"} a row in, problems by split out.

They are planted and asked for in the form of the problems that are made (reasoning.py); structures are not compared, so
it is the file's split that says what is new in a test problem.
"""

from __future__ import annotations

from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.items.reasoning import MOST_OPS, Problem, Split, parse_answer
from pretrain_exp.plan.rows import Row, field, read_rows

_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


def read_problems(path: str) -> dict[Split, list[Problem]]:
    """The problems of each split, in the order of the file.

    UserError, under `file`, for a row that is no problem or whose answer would not be found in its own text, for a
    question that is there twice, and where nothing is there to plant.
    """
    found: dict[Split, list[Problem]] = {"train": [], "test": []}
    rows: dict[str, int] = {}
    for row in read_rows(path):
        problem = _problem(row, path)
        if problem.id in rows:
            text = f"rows {rows[problem.id]} and {row[0]} of {path} ask the same question"
            raise UserError(text, key="file", value=path, fix="keep one of them; `repetitions` plants it more often")
        rows[problem.id] = row[0]
        found[problem.split].append(problem)
    if not found["train"]:
        raise UserError("the file has no row of split train", key="file", value=path, fix="give one at least")
    return found


def _problem(row: Row, path: str) -> Problem:
    def wrong(problem: str, value: Any) -> UserError:
        return UserError(f"row {row[0]} of {path}: {problem}", key="file", value=value, fix="mend or remove this row")

    def text(name: str) -> str:
        value = field(row, name, path, "file")
        if not isinstance(value, str) or not value.strip():
            raise wrong(f"{name!r} must be a text that is not empty", value)
        return value.strip()

    def number(name: str) -> int:
        value = field(row, name, path, "file")
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip().isdecimal():
            raise wrong(f"{name!r} must be a whole number of 0 or more", value)
        return int(value)

    operations, split = number("operations"), text("split")
    if not 1 <= operations <= MOST_OPS:
        raise wrong(f"'operations' must be 1 to {MOST_OPS}", operations)
    if split not in _SPLITS:
        raise wrong("'split' must be train (planted) or test (scored)", split)
    question = text("question")
    identity, answer = content_id("problem", question), number("answer")
    problem = Problem(identity, question, text("solution"), answer, operations, "", _SPLITS[split])
    if parse_answer(problem.text.removeprefix(problem.prompt)) != problem.answer:
        raise wrong("the solution holds a line of its own 'Answer:' or 'Question:'", problem.solution)
    return problem
