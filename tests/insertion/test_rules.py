"""The rules that all kinds share: EOS, repetitions, long texts, ranges; and every wrong input with its message."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.benchmark_contamination import BenchmarkContamination
from pretrain_exp.insertion.encoding import wrap_eos
from pretrain_exp.insertion.ranges import Range
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits

E = 9
Write = Callable[..., str]


@pytest.mark.parametrize(
    ("tokens", "rule", "limit", "expected"),
    [
        ([1, 2], "both", 8, [E, 1, 2, E]),
        ([1, 2], "append", 8, [1, 2, E]),
        ([1, 2], "none", 8, [1, 2]),
        ([1, E], "both", 8, [E, 1, E]),
        ([E, 1], "both", 8, [E, 1, E]),
        ([E, 1, E], "both", 8, [E, 1, E]),
        ([E], "both", 8, [E]),
        ([1, 2, 3, 4, 5, 6, 7], "both", 8, [1, 2, 3, 4, 5, 6, 7, E]),  # room for one: the one after
        ([1, 2, 3, 4, 5, 6, 7, 8], "both", 8, [1, 2, 3, 4, 5, 6, 7, 8]),  # a whole sequence stays bare
        ([1, 2, 3, 4, 5, 6, E], "both", 8, [E, 1, 2, 3, 4, 5, 6, E]),
        ([1, 2, 3, 4, 5, 6, 7, 8], "append", 8, [1, 2, 3, 4, 5, 6, 7, 8]),
        ([1, 2, 3], "both", None, [E, 1, 2, 3, E]),
    ],
)
def test_eos(tokens: list, rule: str, limit: int | None, expected: list) -> None:
    wrapped = wrap_eos(np.array(tokens, dtype=np.uint32), E, rule, limit)
    assert wrapped.tolist() == expected
    assert wrapped.dtype == np.uint32


@pytest.mark.parametrize(
    ("mode", "eos", "expected"),
    [
        ("random", None, [999, 5, 6, 999]),
        ("explicit", None, [5, 6]),
        ("explicit", "both", [999, 5, 6, 999]),
        ("random", "append", [5, 6, 999]),
        ("random", "none", [5, 6]),
    ],
)
def test_eos_by_mode(write: Write, context: InsertionContext, mode: Any, eos: Any, expected: list) -> None:
    file = write([{"text": "5 6", "position": 2000}])
    edits = AddTexts(file=file, mode=mode, eos=eos).edits(context)
    assert edits.items[0].tokens.tolist() == expected
    if mode == "explicit":
        assert edits.position is not None
        assert edits.position.tolist() == [2000]


@pytest.mark.parametrize(
    ("repetitions", "expected"),
    [(0, {0: 40}), (0.3, {0: 28, 1: 12}), (1, {1: 40}), (1.5, {1: 20, 2: 20}), (2.25, {2: 30, 3: 10}), (4.0, {4: 40})],
)
def test_repetitions_are_an_exact_seeded_share(
    write: Write, context: InsertionContext, repetitions: float, expected: dict
) -> None:
    insertion = AddTexts(file=write([{"text": f"{i}"} for i in range(40)]), repetitions=repetitions)
    doses = {item.id: item.dose for item in insertion.edits(context).items}
    counts = list(doses.values())
    assert {dose: counts.count(dose) for dose in set(counts)} == expected
    assert len(insertion.edits(context)) == sum(counts)
    other = {item.id: item.dose for item in insertion.edits(replace(context, seed=1)).items}
    assert (other == doses) == (repetitions == int(repetitions))


def test_one_more_text_changes_no_other_dose_but_one(write: Write, context: InsertionContext) -> None:
    """The share is exact, so one dose may follow the new text; a draw for each file would change about half."""
    rows = [{"text": f"{i}"} for i in range(60)]
    few, more = (
        {item.id: item.dose for item in AddTexts(file=write(part), repetitions=0.5).edits(context).items}
        for part in (rows[:59], rows)
    )
    assert sum(few[item] != more[item] for item in few) <= 1


def test_repetitions_by_group(write: Write, context: InsertionContext) -> None:
    rows = [{"text": f"{i}", "kind": "rare" if i < 10 else "plain"} for i in range(30)]
    repetitions = {"rare": 0.5, "plain": 3}
    edits = AddTexts(file=write(rows), group_key="kind", repetitions=repetitions).edits(context)
    found: dict[str, list[int]] = {}
    for item in edits.items:
        found.setdefault(item.group, []).append(item.dose)
    assert sorted(found["rare"]) == [0] * 5 + [1] * 5
    assert found["plain"] == [3] * 20


def test_equal_texts_are_one_item_whose_doses_add_up(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    file = write([{"text": "1 2"}, {"text": "3"}, {"text": "1 2"}, {"text": "1 2"}])
    edits = AddTexts(file=file, repetitions=2).edits(context)
    assert sorted((item.text, item.dose) for item in edits.items) == [("1 2", 6), ("3", 2)]
    plan = compile_plan([edits], context.phases, context.window, 0, "treated", tmp_path)
    assert plan.audit["ok"]
    message = plan.audit["findings"][0]["message"]
    assert "1 items are given 3 times in all; their doses add up" in message
    assert "row 1" in message
    assert "row 3" in message


LONG = " ".join(str(i) for i in range(100, 170))  # 70 tokens, sequences hold 32


def test_too_long_is_an_error_unless_told_otherwise(write: Write, context: InsertionContext) -> None:
    with pytest.raises(
        UserError, match=r"1 texts are longer than a sequence of 32 tokens, the longest 70 \(row 2 of"
    ) as e:
        AddTexts(file=write([{"text": "1"}, {"text": LONG}])).edits(context)
    assert (e.value.key, e.value.value) == ("insertion.mine.too_long", "error")


@pytest.mark.parametrize(
    ("policy", "pieces"),
    [
        ("split", [[999, *range(100, 131)], list(range(131, 163)), [*range(163, 170), 999]]),
        ("truncate", [list(range(100, 132))]),
    ],
)
def test_too_long_pieces(write: Write, context: InsertionContext, tmp_path: Path, policy: Any, pieces: list) -> None:
    edits = AddTexts(file=write([{"text": LONG}]), too_long=policy, repetitions=2).edits(context)
    assert [item.tokens.tolist() for item in edits.items] == pieces
    names = [item.id for item in edits.items]
    if policy == "split":
        assert [name[-2:] for name in names] == ["#0", "#1", "#2"]
    assert sorted(zip(edits.item.tolist(), edits.copy.tolist(), strict=True)) == [
        (i, copy) for i in range(len(pieces)) for copy in range(2)
    ]
    plan = compile_plan([edits], context.phases, context.window, 0, "treated", tmp_path)
    assert plan.audit["ok"]
    assert f"the longest 70 (row 1 of {tmp_path}/rows.jsonl): {policy}" in plan.audit["findings"][0]["message"]


def test_too_long_skipped_is_in_the_ledger(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    edits = AddTexts(file=write([{"text": LONG}, {"text": "1"}]), too_long="skip", repetitions=3).edits(context)
    plan = compile_plan([edits], context.phases, context.window, 0, "treated", tmp_path)
    rows = [(row["status"], row["position"] >= 0, row["length"]) for row in plan.ledger().to_pylist()]
    assert rows == [("planted", True, 3)] * 3 + [("skipped", False, 70)] * 3
    assert [(f["check"], f["level"]) for f in plan.audit["findings"]] == [("skipped", "warning"), ("insertion", "note")]


def test_explicit_texts_may_be_longer_than_a_sequence(write: Write, context: InsertionContext) -> None:
    edits = AddTexts(file=write([{"text": LONG, "position": 2000}]), mode="explicit").edits(context)
    assert [len(item.tokens) for item in edits.items] == [70]


@pytest.mark.parametrize(
    ("given", "span"),
    [
        ({"start": 2000, "end": 3000}, (2000, 3000)),
        ({"start": 20, "end": 21, "unit": "steps"}, (2560, 2688)),
        ({"start": 0, "end": 0.5, "unit": "share"}, (1280, 14080)),
        ({"start": 0.001, "end": 1, "unit": "share"}, (1306, 26880)),
        (Range(start=10, end=210, unit="steps"), (1280, 26880)),
    ],
)
def test_ranges(write: Write, context: InsertionContext, given: Any, span: tuple) -> None:
    assert AddTexts(file=write([{"text": "1"}]), mode="range", range=given).edits(context).span == span


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_every_kind_of_file(tmp_path: Path, context: InsertionContext, name: str) -> None:
    path = tmp_path / name
    texts = ["1 2", "3, 4", 'a "quoted"\nword']
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), path)
    elif name.endswith(".csv"):
        path.write_text('text\n1 2\n"3, 4"\n"a ""quoted""\nword"\n')
    else:
        data = "\n".join(json.dumps({"text": text}) for text in texts).encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    edits = AddTexts(file=str(path)).edits(context)
    assert [item.text for item in edits.items] == texts
    assert {item.group for item in edits.items} == {"rows"}


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
    (AddTexts, {"mode": "explicit", "repetitions": 2}, ROWS, "repetitions", "planted once each"),
    (AddTexts, {"repetitions": -1}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": float("nan")}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": "many"}, ROWS, "repetitions", "a number of 0 or more"),
    (AddTexts, {"repetitions": 0.01}, ROWS, "repetitions", "20 items at 0.01 repetitions plant nothing"),
    (AddTexts, {"repetitions": {"x": 1}}, ROWS, "repetitions", "group 'rows' has no repetitions"),
    (AddTexts, {"repetitions": {"x": 1, "rows": 1}}, ROWS, "repetitions", "the file has no group 'x'"),
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
