"""The rules that all kinds share: EOS, repetitions, long texts, ranges, files."""

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
from pretrain_exp.insertion.encoding import wrap_eos
from pretrain_exp.insertion.ranges import Range
from pretrain_exp.plan.compile import compile_plan

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


@pytest.mark.parametrize(
    ("kind", "name"), [(AddTexts, "rows.jsonl"), (AddTexts, "rows.csv"), (AddTokens, "rows.jsonl")]
)
def test_every_row_has_its_own_dose(write: Write, context: InsertionContext, kind: Any, name: str) -> None:
    """Whatever the group, which the report goes by beside the dose; in a .csv numbers are text."""
    rows = [{"text": f"{i}", "tokens": [i], "kind": "ab"[i % 2], "copies": i // 2} for i in range(9)]
    if name == "rows.csv":
        rows = ["text,kind,copies", *(f"{row['text']},{row['kind']},{row['copies']}" for row in rows)]
    edits = kind(file=write(rows, name), group_key="kind", dose_key="copies", eos="none").edits(context)
    expected = [(i, "ab"[i % 2], i // 2) for i in range(9)]
    assert [(int(item.tokens[0]), item.group, item.dose) for item in edits.items] == expected
    assert np.bincount(edits.item, minlength=9).tolist() == [dose for _, _, dose in expected]


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
