"""Word problems on their way into a plan: exact numbers and doses, and no structure of the test is planted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.reasoning import Reasoning
from pretrain_exp.items import reasoning
from pretrain_exp.items.planned import planted_items
from pretrain_exp.items.reasoning import Problem, make_problem
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan


@pytest.fixture
def wide(context: InsertionContext) -> InsertionContext:
    """Sequences long enough for a problem."""
    return replace(context, sequence_length=512, phases=Phases([Phase(0, 4, 512)]))


@pytest.mark.parametrize(
    ("fields", "train", "test"),
    [
        ({"problems": 30, "max_ops": 3}, {1: 10, 2: 10, 3: 10}, {1: 4, 2: 4, 3: 4}),
        ({"problems": 11, "max_ops": 4}, {1: 3, 2: 3, 3: 3, 4: 2}, {1: 4, 2: 4, 3: 4, 4: 4}),
        ({"problems": 5, "min_ops": 2, "max_ops": 2, "test_max_ops": 4}, {2: 5}, {2: 4, 3: 4, 4: 4}),
        ({"problems": 6, "max_ops": 2, "repetitions": 3, "distractors": 0}, {1: 3, 2: 3}, {1: 4, 2: 4}),
        ({"problems": 8, "max_ops": 2, "repetitions": 1.5}, {1: 4, 2: 4}, {1: 4, 2: 4}),
    ],
)
def test_counts_doses_and_disjoint_structures(fields, train, test, wide, tmp_path) -> None:
    asked = Reasoning(**fields, test_per_ops=4).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    texts = [item for item in asked.items if not item.probe]
    probes = [text for text in planted_items(str(plan.folder / "items.parquet")).texts if text.probe]
    assert Counter(int(item.group.split()[1]) for item in texts) == train
    problems = [Problem.from_payload(probe.payload or {}) for probe in probes]
    assert Counter(problem.operations for problem in problems) == test
    assert {problem.split for problem in problems} == {"test"}
    assert [problem.id for problem in problems] == [probe.item for probe in probes]
    assert {probe.dose for probe in probes} == {0}

    copies = Counter(row["item"] for row in plan.ledger().to_pylist())
    repetitions = fields.get("repetitions", 1)
    for operations, count in train.items():
        doses = sorted(copies[item.id] for item in texts if item.group == f"train {operations} ops")
        assert sum(doses) == repetitions * count
        assert set(doses) <= {int(repetitions), int(repetitions) + 1}
    assert not set(copies) & {probe.item for probe in probes}

    distractors = fields.get("distractors", 2)
    made = [make_problem(0, i, k, "train", distractors) for k, n in train.items() for i in range(4 * n)]
    structures = {problem.id: problem.structure for problem in made}
    assert not {structures[item.id] for item in texts} & {problem.structure for problem in problems}
    by_id = {problem.id: problem.text for problem in made}
    assert all(item.text == by_id[item.id] for item in texts)


def test_the_same_problems_for_every_placement_and_others_for_another_seed(wide) -> None:
    def ids(context: InsertionContext, **fields) -> set[str]:
        return {item.id for item in Reasoning(problems=20, test_per_ops=3, **fields).edits(context).items}

    assert ids(wide) == ids(replace(wide, seed=7, name="other"))
    assert len(ids(wide) & ids(wide, seed=1)) <= 4  # of one operation there are few questions
    assert ids(wide) > {item.id for item in Reasoning(problems=8, test_per_ops=1).edits(wide).items}


def test_long_problems_are_an_error_or_skipped(wide) -> None:
    short = replace(wide, sequence_length=100)
    with pytest.raises(UserError, match=r"insertion\.mine\.too_long"):
        Reasoning(problems=40).edits(short)
    edits = Reasoning(problems=40, too_long="skip", test_per_ops=1).edits(short)
    assert 0 < len(edits.skipped) < 40
    assert len(edits) + len(edits.skipped) == 40


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": "explicit"}, "mode"),
        ({"too_long": "truncate"}, "too_long"),
        ({"problems": 0}, "problems"),
        ({"min_ops": 0}, "min_ops"),
        ({"min_ops": 3, "max_ops": 2}, "max_ops"),
        ({"max_ops": 41}, "max_ops"),
        ({"test_max_ops": 99}, "test_max_ops"),
        ({"distractors": -1}, "distractors"),
        ({"test_per_ops": -1}, "test_per_ops"),
        ({"repetitions": -1}, "repetitions"),
        ({"repetitions": 0.001, "problems": 4}, "plant nothing"),
    ],
)
def test_wrong_input(fields, says, wide) -> None:
    with pytest.raises(UserError, match=says):
        Reasoning(**fields).edits(wide)


def test_too_few_different_test_problems_are_blamed_on_their_number(wide, monkeypatch) -> None:
    made = reasoning.make_problem
    monkeypatch.setattr(reasoning, "make_problem", lambda seed, i, *rest: made(seed, i * (rest[1] == "train"), *rest))
    with pytest.raises(UserError) as told:
        Reasoning(problems=4, max_ops=1, test_per_ops=2).edits(wide)
    assert told.value.key == f"insertion.{wide.name}.test_per_ops"


ROWS = [
    {"question": f"{i} {i}?", "solution": f"It is {i}.", "answer": i, "operations": 1 + i % 3, "split": split}
    for i, split in enumerate(["train"] * 6 + ["test"] * 4)
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_problems_of_a_file_are_planted_and_scored_by_their_split(name, write, wide, tmp_path) -> None:
    lines = ROWS if name.endswith("l") else [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    kind = Reasoning(file=write(lines, name), repetitions=2)
    assert kind.files() == [("file", kind.file)]
    asked = kind.edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    assert [(item.text, item.group, item.dose, item.probe) for item in asked.items] == [
        (f"Question: {i} {i}?\nSolution: It is {i}.\nAnswer: {i}", f"{split} {1 + i % 3} ops", dose, split == "test")
        for i, (split, dose) in enumerate([("train", 2)] * 6 + [("test", 0)] * 4)
    ]
    probes = [text for text in planted_items(str(plan.folder / "items.parquet")).texts if text.probe]
    problems = [Problem.from_payload(probe.payload or {}) for probe in probes]
    assert [each.id for each in problems] == [probe.item for probe in probes]
    assert sorted((each.answer, each.operations, each.split) for each in problems) == [
        (i, 1 + i % 3, "test") for i in range(6, 10)
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": " "}, "'question' must be a text"),
        ({"solution": None}, "has no 'solution'"),
        ({"answer": 1.5}, "'answer' must be a whole number"),
        ({"answer": -1}, "'answer' must be a whole number"),
        ({"answer": True}, "'answer' must be a whole number"),
        ({"operations": 0}, "'operations' must be 1 to 40"),
        ({"split": "dev"}, "'split' must be train"),
        ({"solution": "Answer: 3"}, "line of its own"),
        ({"question": "9 9?"}, "rows 2 and 10 of .* ask the same question"),
        ({"split": "test"}, "no row of split train"),
    ],
)
def test_a_row_that_is_no_problem(change, says, write, wide) -> None:
    rows = [row | change if i == 1 else row for i, row in enumerate(ROWS)]
    rows = [row for row in rows if row["split"] != "train"] if change == {"split": "test"} else rows
    with pytest.raises(UserError, match=says) as error:
        Reasoning(file=write(rows)).edits(wide)
    assert error.value.key == "insertion.mine.file"


def test_a_file_and_problems_to_make() -> None:
    with pytest.raises(UserError, match="max_ops, test_max_ops say what is made") as error:
        Reasoning(file="rows.jsonl", max_ops=10, test_max_ops=12)
    assert error.value.fix == "leave out, or set back: max_ops=4 test_max_ops=null"


def test_the_configuration_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "conf" / "insertion" / "reasoning.yaml").read_text()
    assert text.startswith("# @package insertion.reasoning\n")
    values = yaml.safe_load(text)
    assert check_kind(values, "insertion.reasoning") == Reasoning()
    assert set(values) - {"_target_"} == {field.name for field in dataclasses.fields(Reasoning)}
