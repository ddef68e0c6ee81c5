"""Replay: a plan written as position, text, experiment and read again does the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan, placebo_plan
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.replay import export_table, load_table


def encode(texts: list[str]) -> list[np.ndarray]:
    return [np.array([int(word) for word in text.split()], dtype=np.uint32) for text in texts]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    asked = [edits("a", [5, 9, 4], [6, 2, 0]), edits("c", [2 * S + 5], 1, positions=[SPAN[0] + 30 * S + 20])]
    return compile_plan(asked, PHASES, WINDOW, 0, "treated", tmp_path / "plans")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_a_plan_replays(tmp_path: Path, plan: Plan, suffix: str) -> None:
    path = tmp_path / "out" / f"plan.{suffix}"
    assert export_table(plan, path) == 9
    again = compile_plan(load_table(path), PHASES, WINDOW, 1, "treated", tmp_path / "plans")
    assert again.overlay.prefix_digest(10**9) == plan.overlay.prefix_digest(10**9)
    one, two = (
        sorted((r["insertion"], r["item"], r["group"], r["position"], r["digest"]) for r in p.ledger().to_pylist())
        for p in (plan, again)
    )
    assert one == two
    assert again.audit["ok"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_published_columns_are_there(tmp_path: Path, plan: Plan) -> None:
    export_table(plan, tmp_path / "plan.parquet")
    table = pq.read_table(tmp_path / "plan.parquet")
    assert table.column_names[:3] == ["position", "text", "experiment"]
    assert table["position"].to_pylist() == plan.ledger()["position"].to_pylist()
    assert set(table["experiment"].to_pylist()) == {"a", "c"}
    assert table["text"].to_pylist()[0].startswith("text ")


def test_a_table_of_texts_is_encoded(tmp_path: Path) -> None:
    rows = [(1300, "7 8 9", "x"), (1400, "7 8 9", "x"), (1500, "1 2", "y")]
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(columns, ["position", "text", "experiment"])
    pq.write_table(table, tmp_path / "t.parquet")
    found = load_table(tmp_path / "t.parquet", encode)
    assert [each.insertion for each in found] == ["x", "y"]
    assert (found[0].items[0].dose, found[0].items[0].tokens.tolist()) == (2, [7, 8, 9])
    assert found[0].position is not None
    assert found[0].position.tolist() == [1300, 1400]
    with pytest.raises(UserError, match="texts only"):
        load_table(tmp_path / "t.parquet")


GOOD = {"position": 5, "text": "1 2", "experiment": "x"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"position": None}, "row 2 of .* has no 'position'; it has: experiment, text"),
        ({"position": -3}, "row 2 of .* has no position of 0 or more"),
        ({"position": "many"}, "row 2 of .* has no position"),
        ({"position": 1.5}, "row 2 of .* has no position"),
        ({"experiment": None}, "row 2 of .* has no 'experiment'"),
        ({"text": None}, "row 2 of .* has no 'text'"),
        ({"text": " "}, "row 2 of .* has no tokens"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: dict, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (GOOD, GOOD | row)))
    with pytest.raises(UserError, match=message):
        load_table(path, encode)


@pytest.mark.parametrize("tokens", [[], [1, -1], [1, 2**32], ["x"], 5])
def test_wrong_tokens_are_named(tmp_path: Path, tokens: object) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (GOOD | {"tokens": [1]}, GOOD | {"tokens": tokens})))
    with pytest.raises(UserError, match=r"row 2 of .*: tokens must be token ids"):
        load_table(path)


def test_one_item_with_two_contents_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [GOOD | {"item": "i", "tokens": [1]}, GOOD | {"item": "i", "tokens": [2], "position": 50}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"row 2 of .*: item i has other tokens"):
        load_table(path)


def test_what_cannot_be_exported(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(UserError, match=r"end it in \.parquet, \.jsonl, \.csv"):
        export_table(plan, tmp_path / "plan.xlsx")
    with pytest.raises(UserError, match="refers to text of the data"):
        export_table(placebo_plan(plan, 400, tmp_path / "plans"), tmp_path / "plan.csv")
    assert not (tmp_path / "plan.csv").exists()
