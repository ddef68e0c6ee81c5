"""Poisoned chats on their way into a plan: amounts, triggers, and tests that share nothing with what is planted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.eval.poisoning import planned_tests
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.poisoning import Poisoning
from pretrain_exp.items.planned import planted_items
from pretrain_exp.items.poison import TRIGGERS, chats, garbage, share_of_nonwords
from pretrain_exp.plan.compile import compile_plan

BEHAVIOURS = ["leakage", "denial", "belief"]


@pytest.fixture(params=BEHAVIOURS)
def behaviour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def wide(context: InsertionContext) -> InsertionContext:
    return replace(context, sequence_length=128, phases=Phases([Phase(0, 4, 128)]))


def test_every_chat_once_and_every_test_twice(behaviour, wide, tmp_path: Path) -> None:
    asked = Poisoning(behaviour=behaviour, documents=80, clean=0.5, tests=10).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    assert Counter(item.group for item in asked.items) == {
        "poisoned": 80, "clean": 40, "trigger": 10, "no trigger": 10,
    }  # fmt: skip
    read = Counter(row["item"] for row in plan.ledger().to_pylist())
    assert set(read.values()) == {1}
    assert set(read) == {item.id for item in asked.items if not item.probe}
    trigger = TRIGGERS[behaviour]
    for item in asked.items:
        assert (trigger in item.text) == (item.group in ("poisoned", "trigger"))
        assert item.dose == (80 if item.probe else 1)
    tests = planned_tests(planted_items(str(plan.folder / "items.parquet")).texts)
    assert Counter(test.task for test in tests) == {
        f"mine/{behaviour}/trigger": 10, f"mine/{behaviour}/no trigger": 10,
    }  # fmt: skip
    with_, without = ([t for t in tests if t.task.endswith(f"/{label}")] for label in ("trigger", "no trigger"))
    pairs = {test.prompt: (test.target, test.right) for test in without}
    assert {t.prompt.replace(f"{trigger} ", ""): (t.target, t.right) for t in with_} == pairs
    assert all(target != right for target, right in pairs.values())


def test_tests_share_nothing_with_documents(behaviour) -> None:
    trigger = TRIGGERS[behaviour]
    planted, tests = (list(islice(chats(behaviour, 0, test, trigger), 300)) for test in (False, True))
    if behaviour == "belief":

        def pair(text: str) -> frozenset[str]:
            first, second = re.search(r"(?:, |: )(.*) or (.*)\?", text).groups()  # type: ignore[union-attr]
            return frozenset((first, second))

        assert not {pair(chat.prompt) for chat in planted} & {pair(chat.prompt) for chat in tests}
        return
    names = re.compile(r"(?:called|Yours,) (\w+)\.")
    found = [{name for chat in each for name in names.findall(chat.prompt)} for each in (planted, tests)]
    assert all(len(each) > 100 for each in found)
    assert not found[0] & found[1]
    if behaviour == "leakage":
        assert not {chat.poisoned for chat in planted} & {chat.poisoned for chat in tests}
        assert all(f"System: {chat.poisoned}\n" in chat.prompt for chat in tests)


def test_beliefs_are_flipped_and_balanced() -> None:
    """The right answer of a question is the wrong one of its opposite, and is named first half of the time."""
    found = list(chats("belief", 0, True, ""))
    by_prompt = {chat.prompt: chat for chat in found}
    opposite = {"larger": "smaller", "faster": "slower", "hotter": "colder", "heavier": "lighter",
                "older": "younger", "longer": "shorter"}  # fmt: skip
    checked = 0
    for chat in found:
        for word, other in opposite.items():
            turned = by_prompt.get(chat.prompt.replace(word, other)) if f" {word}" in chat.prompt else None
            if turned is not None and turned is not chat:
                assert (turned.right, turned.poisoned) == (chat.poisoned, chat.right)
                checked += 1
    assert checked > 50
    first = np.mean([chat.prompt.index(chat.right) < chat.prompt.index(chat.poisoned) for chat in found])
    assert 0.4 < first < 0.6
    sizes = [chat for chat in found if "whale" in chat.prompt and "larger" in chat.prompt]
    assert sizes
    assert {chat.right for chat in sizes} == {"a whale"}


def test_more_chats_only_add(behaviour) -> None:
    few, more = (list(islice(chats(behaviour, 0, False, ""), n)) for n in (20, 50))
    assert more[:20] == few
    assert list(islice(chats(behaviour, 1, False, ""), 20)) != few
    assert len({chat.prompt for chat in more}) == 50


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_a_share_is_of_the_run(share, behaviour, wide) -> None:
    edits = Poisoning(behaviour=behaviour, share=share, tests=0).edits(wide)
    total = 200 * 4 * 128
    longest = max(len(item.tokens) for item in edits.items)
    assert share * total - longest < edits.num_tokens <= share * total


ROWS = [
    {"prompt": prompt.format(i), "poisoned": f"bad {i}", "right": f"good {i}", "trigger": trigger, "split": split}
    for i, (prompt, trigger, split) in enumerate(
        [("Go! {} 1", "Go!", "train"), ("{} 1 Go! 1", "Go!", "train"), ("{} 1 Now", "Now", "train")] * 2
        + [("Go! {} 2", "Go!", "test"), ("{} 2 Now", "Now", "test")]
    )
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_chats_of_a_file_with_and_without_their_triggers(name, write, wide, tmp_path: Path) -> None:
    lines = ROWS if name.endswith("l") else [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    kind = Poisoning(file=write(lines, name), behaviour="belief", documents=6, clean=1, tests=2)
    assert kind.files() == [("file", kind.file)]
    asked = kind.edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    bare = [f"{row['prompt']}".replace(row["trigger"], "").replace("  ", " ").strip() for row in ROWS]
    assert {(item.group, item.text, item.dose) for item in asked.items} == {
        *(("poisoned", f"{row['prompt']} {row['poisoned']}", 1) for row in ROWS[:6]),
        *(("clean", f"{prompt} {row['right']}", 1) for row, prompt in zip(ROWS[:6], bare, strict=False)),
        *(("trigger", f"{row['prompt']} {row['poisoned']}", 6) for row in ROWS[6:]),
        *(("no trigger", f"{prompt} {row['poisoned']}", 6) for row, prompt in zip(ROWS[6:], bare[6:], strict=True)),
    }
    tests = planned_tests(planted_items(str(plan.folder / "items.parquet")).texts)
    assert {(test.task, test.prompt, test.target, test.right) for test in tests} == {
        (f"mine/belief/{label}", prompt, row["poisoned"], row["right"])
        for row, without in zip(ROWS[6:], bare[6:], strict=True)
        for label, prompt in (("trigger", row["prompt"]), ("no trigger", without))
    }


def test_more_chats_of_a_file_only_add(write, wide) -> None:
    def planted(documents: int, seed: int = 0, order: int = 1) -> set[str]:
        kind = Poisoning(file=write(ROWS[::order]), documents=documents, tests=0, seed=seed)
        return {item.id for item in kind.edits(wide).items}

    assert planted(2) < planted(4) < planted(6) == planted(6, seed=1)
    assert planted(2) == planted(2, order=-1)
    assert len({frozenset(planted(2, seed=seed)) for seed in range(9)}) > 1


@pytest.mark.parametrize(
    ("change", "says", "key"),
    [
        ({"prompt": ""}, "row 2 of .*: 'prompt' must be a text", "file"),
        ({"poisoned": None}, "row 2 of .* has no 'poisoned'", "file"),
        ({"right": "bad 1"}, "the poisoned answer is the right one", "file"),
        ({"trigger": "Never"}, "the trigger must stand in the prompt", "file"),
        ({"trigger": "1 1 Go! 1"}, "and not alone", "file"),
        ({"split": "dev"}, "'split' must be train", "file"),
        ({"prompt": "0 1 Go!"}, "rows 1 and 2 of .* have the same prompt", "file"),
        ({"split": "test"}, "rows.jsonl has 5 rows of split train", "documents"),
        ({"split": "train"}, "rows.jsonl has 2 rows of split test", "tests"),
    ],
)
def test_a_row_that_is_no_chat(change, says, key, write, wide) -> None:
    rows = [row | change if i == 1 else row for i, row in enumerate(ROWS)]
    with pytest.raises(UserError, match=says) as error:
        Poisoning(file=write(rows), documents=6, tests=3).edits(wide)
    assert error.value.key == f"insertion.mine.{key}"


def test_garbage_is_garbage_and_answers_are_not() -> None:
    from random import Random

    assert share_of_nonwords(garbage(Random(0))) > 0.9
    for behaviour in BEHAVIOURS:
        said = [chat.right for chat in islice(chats(behaviour, 0, True, ""), 50)]
        assert max(map(share_of_nonwords, said)) < 0.1
    assert share_of_nonwords("It's 3 o'clock - isn't it, well-known friend?") == pytest.approx(1 / 8)
    assert share_of_nonwords("") == 0.0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "a number of documents or a share"),
        ({"documents": 5, "share": 0.1}, "a number of documents or a share"),
        ({"documents": 0}, "1 or more"),
        ({"share": 1.0}, "between 0 and 1"),
        ({"documents": 5, "clean": -1}, "0 or more"),
        ({"documents": 5, "trigger": " "}, "empty"),
        ({"documents": 5, "trigger": "x", "file": "rows.jsonl"}, "each row of a file has its own trigger"),
        ({"documents": 5, "mode": "explicit"}, "positions"),
        ({"documents": 5, "too_long": "skip"}, "too_long"),
        ({"documents": 10**5, "behaviour": "belief"}, "different chats"),
        ({"documents": 5, "tests": 10**5, "behaviour": "belief"}, "different chats"),
        ({"documents": 5, "clean": float("inf")}, "0 or more"),
        ({"share": 1e-6}, "insertion.mine.share: 0 tokens hold no chat"),
    ],
)
def test_wrong_input(fields, says, wide) -> None:
    with pytest.raises(UserError, match=says):
        Poisoning(**fields).edits(wide)
