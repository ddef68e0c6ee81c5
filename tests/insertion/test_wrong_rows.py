"""Every wrong input of the kinds that plant what a file or a benchmark holds, with its message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext, keyed
from pretrain_exp.insertion.benchmark_contamination import BenchmarkContamination
from pretrain_exp.plan.edits import Edits

Write = Callable[..., str]


ROWS = [{"text": f"{i}", "tokens": [i]} for i in range(20)]


def edits_of(kind: Any, fields: dict, context: InsertionContext) -> Edits:
    """As the configuration does it: what the constructor refuses gets the key of the insertion there."""
    try:
        insertion = kind(**fields)
    except UserError as error:
        raise error.under("insertion.mine") from error
    return insertion.edits(context)


def rows(i: int, row: Any) -> list[Any]:
    return [*ROWS[: i - 1], row, *ROWS[i:]]


WRONG_ROWS = [
    (AddTexts, {}, rows(17, {"txt": "x"}), "key", "row 17 of .* has no 'text'; it has: txt"),
    (AddTexts, {}, rows(3, {"text": ""}), "key", "row 3 of .*: 'text' must be a text that is not empty"),
    (AddTexts, {}, rows(3, {"text": 5}), "key", "row 3 of .*: 'text' must be a text"),
    (AddTexts, {}, rows(3, {"text": "  "}), "file", "row 3 of .* has no tokens"),
    (AddTexts, {}, rows(5, "{broken"), "file", "row 5 of .* cannot be read"),
    (AddTexts, {}, rows(5, [1, 2]), "file", "row 5 of .* is a list, not an object"),
    (AddTexts, {}, [], "file", "there is nothing to plant"),
    (AddTexts, {"key": "body"}, ROWS, "key", "row 1 of .* has no 'body'; it has: text, tokens"),
    (AddTexts, {"group_key": "kind"}, ROWS, "group_key", "row 1 of .* has no 'kind'"),
    (AddTexts, {"mode": "explicit"}, ROWS, "position_key", "row 1 of .* has no 'position'"),
    (AddTexts, {"mode": "explicit"}, [{"text": "1", "position": "x"}], "position_key", "no position of 0 or more"),
    (AddTexts, {"mode": "explicit"}, [{"text": "1", "position": -1}], "position_key", "no position of 0 or more"),
    (AddTexts, {"mode": "explicit"}, [{"text": "1", "position": 1e999}], "position_key", "no position of 0 or more"),
    (AddTexts, {"mode": "explicit", "repetitions": 2}, ROWS, "repetitions", "planted once each"),
    (AddTexts, {"repetitions": -1}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": float("nan")}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": "many"}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": 0.01}, ROWS, "repetitions", "20 items at 0.01 repetitions plant nothing"),
    (AddTexts, {"repetitions": {"x": 1}}, ROWS, "repetitions", "group 'rows' has no repetitions"),
    (AddTexts, {"repetitions": {"x": 1, "rows": 1}}, ROWS, "repetitions", "the file has no group 'x'"),
    (AddTexts, {"dose_key": "n"}, ROWS, "dose_key", "row 1 of .* has no 'n'; it has: text, tokens"),
    (AddTexts, {"dose_key": "n"}, [{"text": "1", "n": 1.5}], "dose_key", "row 1 of .*: 'n' must be a whole number"),
    (AddTexts, {"dose_key": "n"}, [{"text": "1", "n": -1}], "dose_key", "'n' must be a whole number of 0 or more"),
    (AddTexts, {"dose_key": "n"}, [{"text": "1", "n": "few"}], "dose_key", "'n' must be a whole number of 0 or more"),
    (AddTokens, {"dose_key": "n"}, [{"tokens": [1], "n": True}], "dose_key", "'n' must be a whole number"),
    (AddTexts, {"dose_key": "n", "repetitions": 2}, ROWS, "repetitions", "dose_key already says how often"),
    (AddTexts, {"dose_key": "n", "mode": "explicit"}, ROWS, "mode", "planted once each"),
    (AddTexts, {"range": {"start": 0, "end": 1}}, ROWS, "mode", "a range is given, but not used"),
    (AddTexts, {"mode": "range"}, ROWS, "range", "mode range needs a range"),
    (AddTexts, {"mode": "range", "range": {"start": 3000, "end": 2000}}, ROWS, "range", "must end after it starts"),
    (AddTexts, {"mode": "range", "range": {"start": 0, "end": float("inf")}}, ROWS, "range", "must be numbers"),
    (AddTexts, {"mode": "range", "range": {"start": 0, "end": 2000}}, ROWS, "range", "which reads 1,280 to 26,880"),
    (AddTexts, {"mode": "range", "range": {"start": 0, "end": 1.1, "unit": "share"}}, ROWS, "range", "leaves the run"),
    (AddTexts, {"mode": "range", "range": {"start": 2000.5, "end": 3000}}, ROWS, "range", "must be whole numbers"),
    (AddTexts, {"mode": "range", "range": {"start": 0, "end": 1e-9, "unit": "share"}}, ROWS, "range", "holds no token"),
    (AddTokens, {}, rows(3, {"tokens": [1, "2"]}), "key", "row 3 of .*: entry 1 is no token id"),
    (AddTokens, {}, rows(3, {"tokens": [1.5]}), "key", "row 3 of .*: entry 0 is no token id"),
    (AddTokens, {}, rows(3, {"tokens": [True]}), "key", "entry 0 is no token id"),
    (AddTokens, {}, rows(3, {"tokens": [2**32]}), "key", "entry 0 is no token id"),
    (AddTokens, {}, rows(3, {"tokens": [-1]}), "key", "entry 0 is no token id"),
    (AddTokens, {}, rows(3, {"tokens": []}), "key", "a list of token ids that is not empty"),
    (AddTokens, {}, rows(3, {"tokens": "1 2"}), "key", "a list of token ids"),
    (AddTokens, {}, rows(3, {"tokens": [1001]}), "file", "row 3 of .* holds token 1001, the vocabulary has 1000"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "lines", "key", "message"), WRONG_ROWS)
def test_wrong_input_has_its_message(
    write: Write, context: InsertionContext, kind: Any, fields: dict, lines: list, key: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        edits_of(kind, {"file": write(lines)} | fields, replace(context, vocab_size=1000))
    assert caught.value.key == f"insertion.mine.{key}"


@pytest.mark.parametrize("given", ["file", "insertion.outer.file"])
def test_an_error_gets_its_full_key_once(context: InsertionContext, given: str) -> None:
    """A kind within a kind: what it raises goes through as it is, and is not its own cause."""
    wrong = UserError("no such file", key=given)

    @keyed
    def edits(kind: Any, context: InsertionContext) -> None:
        raise wrong

    with pytest.raises(UserError) as caught:
        edits(None, context)
    assert caught.value.key == ("insertion.outer.file" if caught.value is wrong else "insertion.mine.file")
    assert caught.value.__cause__ is (None if caught.value is wrong else wrong)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jsonl", "no such file"),
        ("rows.xlsx", "cannot be read"),
        ("bad.jsonl.gz", "row 1 of"),
        ("bad.parquet", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, context: InsertionContext, name: str, message: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text("no such thing")
    with pytest.raises(UserError, match=message) as caught:
        AddTexts(file=str(tmp_path / name)).edits(context)
    assert caught.value.key == "insertion.mine.file"


def test_the_same_text_in_two_groups(write: Write, context: InsertionContext) -> None:
    file = write([{"text": "1", "g": "a"}, {"text": "1", "g": "b"}])
    with pytest.raises(UserError, match=r"row 1 of .* and row 2 of .* hold the same item, in groups 'a' and 'b'"):
        AddTexts(file=file, group_key="g").edits(context)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"benchmark": "olmes:no_such_benchmark"}, "benchmark", "no_such_benchmark"),
        ({"benchmark": "nothing"}, "benchmark", "names no benchmark"),
        ({"mode": "explicit"}, "mode", "have no positions"),
        ({"too_long": "split"}, "too_long", "is not the item that is scored"),
        ({"repetitions": []}, "repetitions", "at least one"),
        ({"repetitions": [1, 1]}, "repetitions", "distinct doses"),
        ({"repetitions": [0, -1]}, "repetitions", "a number of 0 or more"),
        ({"fraction": 1.5}, "fraction", "must lie in 0 to 1"),
        ({"repetitions": 4, "fraction": 0.01}, "fraction", "0 of 4 items are not enough for 1 doses"),
        ({"repetitions": [0, 1, 2, 3, 4]}, "repetitions", "4 of 4 items are not enough for 5 doses"),
        ({"limit": 5}, "limit", "4 items"),
    ],
)
def test_wrong_benchmarks(write: Write, context: InsertionContext, fields: dict, key: str, message: str) -> None:
    items = [{"query": f"{i}", "choices": ["1", "2"], "gold": 0} for i in range(4)]
    fields = {"benchmark": write(items), "repetitions": [0, 1]} | fields
    with pytest.raises(UserError, match=message) as caught:
        edits_of(BenchmarkContamination, fields, context)
    assert caught.value.key == f"insertion.mine.{key}"


def test_files_are_named_for_an_early_check(write: Write) -> None:
    assert AddTexts(file="a.jsonl").files() == [("file", "a.jsonl")]
    assert BenchmarkContamination(benchmark="b.jsonl", repetitions=1).files() == [("benchmark", "b.jsonl")]
    assert BenchmarkContamination(benchmark="olmes:arc_easy", repetitions=1).files() == []


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (AddTexts, {"mode": "range"}),
        (AddTexts, {"range": {"start": 0, "end": 1}}),
        (AddTexts, {"repetitions": -1}),
        (AddTokens, {"mode": "explicit", "repetitions": 2}),
        (BenchmarkContamination, {"fraction": 2}),
        (BenchmarkContamination, {"too_long": "split"}),
    ],
)
def test_contradictions_show_before_anything_is_read(kind: Any, fields: dict) -> None:
    benchmark = kind is BenchmarkContamination
    source = {"benchmark": "absent.jsonl", "repetitions": 1} if benchmark else {"file": "absent.jsonl"}
    with pytest.raises(UserError):
        kind(**source | fields)
