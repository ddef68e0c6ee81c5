"""Replay: a plan written as position, text, experiment and read again does the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import placebo_plan
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
    assert table["position"].to_pylist() == [*plan.ledger()["position"].to_pylist(), -1]
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
    with pytest.raises(UserError, match="has to be encoded"):
        load_table(tmp_path / "t.parquet")


GOOD = {"position": 5, "text": "1 2", "experiment": "x"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"position": None}, "row 2 of .* has no 'position'; it has: experiment, text"),
        ({"position": -2}, "row 2 of .* has no position of 0 or more"),
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
    with pytest.raises(UserError, match=r"insertion .* puts other text of the data"):
        export_table(placebo_plan(plan, 400, tmp_path / "plans"), tmp_path / "plan.csv")
    assert not (tmp_path / "plan.csv").exists()


class TestTokenizers:
    """Token ids mean something under their own tokenizer only."""

    def plan(self, folder: Path) -> Plan:
        """Two texts of numbers between EOS (99), the second a holdout with a payload."""
        items = [
            EditItem("one", np.array([99, 7, 8, 9, 99], np.uint32), "7 8 9", "g", 2),
            EditItem("two", np.array([99, 3, 99], np.uint32), "3", "g", 0, '{"gold": 1}'),
        ]
        positions = np.array([SPAN[0] + 3, SPAN[0] + 70])
        asked = Edits(
            "a", items, np.array([0, 0], np.int32), np.array([0, 1], np.int32), "explicit", position=positions
        )
        return compile_plan([asked], PHASES, WINDOW, 0, "treated", folder / "plans")

    @pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
    def test_the_same_tokenizer_gives_the_same_plan(self, tmp_path: Path, suffix: str) -> None:
        plan = self.plan(tmp_path)
        export_table(plan, tmp_path / f"t.{suffix}", tokenizer_fingerprint="same")
        found = load_table(tmp_path / f"t.{suffix}", encode, fingerprint="same", vocab_size=100)
        again = compile_plan(found, PHASES, WINDOW, 0, "treated", tmp_path / "plans")
        assert again.fingerprint == plan.fingerprint, "holdouts and payloads included"
        assert again.items().to_pylist()[1]["payload"] == '{"gold": 1}'

    @pytest.mark.parametrize("written", ["other", ""])
    def test_another_one_encodes_the_texts_anew(self, tmp_path: Path, written: str) -> None:
        export_table(self.plan(tmp_path), tmp_path / "t.jsonl", tokenizer_fingerprint=written)
        (found,) = load_table(tmp_path / "t.jsonl", encode, fingerprint="same", vocab_size=100)
        assert [item.tokens.tolist() for item in found.items] == [[7, 8, 9], [3]]
        assert [item.dose for item in found.items] == [2, 0]
        assert "3 rows hold ids of another tokenizer" in found.notes[0]

    @pytest.mark.parametrize("vocab_size", [99, 9])
    def test_ids_outside_the_vocabulary_are_named(self, tmp_path: Path, vocab_size: int) -> None:
        export_table(self.plan(tmp_path), tmp_path / "t.jsonl", tokenizer_fingerprint="same")
        for fingerprint, token in (("same", 99), ("other", 9)):
            if token >= vocab_size:
                with pytest.raises(
                    UserError, match=f"row 1 of .* holds token {token}, the vocabulary has {vocab_size}"
                ):
                    load_table(tmp_path / "t.jsonl", encode, fingerprint=fingerprint, vocab_size=vocab_size)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"text": ""}], "row 1 of .* no text to encode"),
            ([{"text": None}], "row 1 of .* no text to encode"),
            ([{"item": "t#0"}, {"item": "t#1", "tokens": [3]}], "row 2 of .* holds a piece of its text"),
            ([{"item": "t"}, {"item": "t", "position": -1}], "row 2 of .* planted and held out"),
        ],
    )
    def test_what_cannot_be_encoded_anew_is_named(self, tmp_path: Path, rows: list[dict], message: str) -> None:
        path = tmp_path / "t.jsonl"
        path.write_text("\n".join(json.dumps(GOOD | {"tokens": [1, 2], "tokenizer": "x"} | row) for row in rows))
        with pytest.raises(UserError, match=message):
            load_table(path, encode, fingerprint="same")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_probes_replay(tmp_path: Path, suffix: str) -> None:
    asked = edits("a", [5, 4], [6, 0])
    probe = EditItem("ask", np.arange(7, 11, dtype=np.uint32), "7 8", "g", 6, '{"kind": "x"}', probe=True)
    plan = compile_plan([replace(asked, items=[*asked.items, probe])], PHASES, WINDOW, 0, "treated", tmp_path / "plans")
    assert export_table(plan, tmp_path / f"t.{suffix}") == 6
    again = compile_plan(load_table(tmp_path / f"t.{suffix}"), PHASES, WINDOW, 0, "treated", tmp_path / "plans")
    assert again.audit["ok"], again.audit["findings"]
    assert again.items().to_pylist() == plan.items().to_pylist()
