"""Fifteen defects that are known of a framework of this kind: each works here, or is refused with a clear error.

One test each, numbered: what that framework did is told in the first line of the docstring. Here those of plans; the
others, of runs, scores and the command line, in test_seed_defects_run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan

Write = Callable[..., str]


def rows(plan: Plan) -> list[dict[str, Any]]:
    return plan.ledger().to_pylist()


def plan_of(context: InsertionContext, root: Path, *asked: Edits, below: Plan | None = None) -> Plan:
    return compile_plan(asked, context.phases, context.window, context.seed, "treated", root, below)


def overlaps(plan: Plan) -> int:
    spans = sorted((row["position"], row["position"] + row["length"]) for row in rows(plan))
    return sum(stop > start for (_, stop), (start, _) in pairwise(spans))


def numbered(count: int) -> list[dict[str, str]]:
    return [{"text": f"{i} {i + 1} {i + 2} {i + 3}"} for i in range(count)]


def test_1_periods_draw_places_of_their_own(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """Every period of a closed loop drew the same relative positions, and overlapped what was planned beside it."""
    static = AddTexts(file=write(numbered(200))).edits(context)
    plan = plan_of(context, tmp_path, static)
    size = 64 * 128  # positions of a period
    first = context.phases.position_of_step(context.window.first_step)
    places = []
    for period in range(3):
        span = (first + period * size, first + (period + 1) * size)
        asked = replace(AddTexts(file=write(numbered(60), "loop.jsonl")).edits(context), insertion="loop", span=span)
        plan = plan_of(context, tmp_path, asked, below=plan)
        mine = [row["position"] - span[0] for row in rows(plan) if row["insertion"] == "loop"]
        places.append({place for place in mine if 0 <= place < size})
    assert plan.audit["ok"], plan.audit["findings"]
    assert [len(each) for each in places] == [60, 60, 60]
    assert all(len(a & b) < 10 for a, b in pairwise(places))
    assert overlaps(plan) == 0
    assert sum(row["insertion"] == "mine" for row in rows(plan)) == 200


@pytest.mark.parametrize("name", ["before", "zlast"])
def test_2_experiments_do_not_move_each_other(
    write: Write, context: InsertionContext, tmp_path: Path, name: str
) -> None:
    """One random stream for all: an experiment added before another moved all of the other's texts."""
    mine = AddTexts(file=write(numbered(50))).edits(context)
    few = replace(context, name=name)
    other = AddTexts(file=write([{"text": f"7{i} 8{i}"} for i in range(20)], "other.jsonl")).edits(few)

    def places(plan: Plan) -> dict[str, int]:
        return {row["item"]: row["position"] for row in rows(plan) if row["insertion"] == "mine"}

    alone, together = places(plan_of(context, tmp_path, mine)), places(plan_of(context, tmp_path, mine, other))
    assert sum(alone[item] != together[item] for item in alone) <= 1  # none, but for a real collision
    reordered = places(plan_of(context, tmp_path, other, mine))
    assert reordered == together


@pytest.mark.parametrize("fill", [0.7, 0.8, 1.0])
def test_3_nothing_is_dropped_in_silence(write: Write, context: InsertionContext, tmp_path: Path, fill: float) -> None:
    """From a fill of 70 % on, texts were left out with a warning; an exact tiling lost one."""
    tokens = 200 * 4 * 32
    count = int(fill * tokens / 8)
    file = write([{"tokens": [i % 900 + j for j in range(8)]} for i in range(800)])
    copies = {"repetitions": count / 800, "eos": "none"}
    packed = plan_of(context, tmp_path, AddTokens(file=file, on_full="pack", **copies).edits(context))
    assert packed.audit["ok"], packed.audit["findings"]
    assert (packed.audit["edits"], packed.audit["skipped"], overlaps(packed)) == (count, 0, 0)
    if fill == 1.0:
        with pytest.raises(UserError) as error:
            plan_of(context, tmp_path, AddTokens(file=file, **copies).edits(context))
        assert "on_full" in error.value.render()
    over = AddTokens(file=file, on_full="pack", repetitions=tokens / 6400 + 0.1, eos="none").edits(context)
    with pytest.raises(UserError, match=r"more than there is \(3,280 edits of mine\)"):
        plan_of(context, tmp_path, over)


def test_5_what_is_derived_from_a_row_is_derived_after_its_edits(
    write: Write, context: InsertionContext, tmp_path: Path
) -> None:
    """Masks, labels and document lengths were those of the text that was replaced."""
    from pretrain_exp.framework.huggingface.loader import derive

    file = write([{"tokens": [5, 6, 7], "position": 1280 + 10}])
    plan = plan_of(context, tmp_path, AddTokens(file=file, mode="explicit", eos="both").edits(context))
    base = np.arange(100, 132, dtype=np.uint32)  # a document without an end
    row = plan.overlay.apply(40, base).astype(np.int64)[None]
    assert row[0, 10:15].tolist() == [999, 5, 6, 7, 999]
    labels, positions = derive(row, 999, document_masking=True)
    assert positions is not None
    assert positions[0].tolist() == [*range(11), 0, 1, 2, 3, *range(17)]
    assert [column for column in range(31) if labels[0, column] < 0] == [10, 14]  # an EOS predicts nothing
    assert labels[0, 11:14].tolist() == [6, 7, 999]


def test_13_a_second_epoch_reads_no_edit_again(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """In later epochs the same edits came back, or came at other positions."""
    stream = tmp_path / "stream.bin"
    np.arange(40 * 32, dtype=np.uint16).tofile(stream)
    files = TokenFiles((TokenFile(str(stream), "uint16", 0, 40 * 32, "digest", "stream.bin"),), 999, None)
    order = ShuffledOrder(files, 32, 0)  # 40 sequences; the window of 800 slots reads each of them 20 times
    plan = plan_of(context, tmp_path, AddTexts(file=write(numbered(60)), repetitions=2).edits(context))
    tokens = {item["item"]: item["tokens"] for item in plan.items().to_pylist()}
    by_slot: dict[int, list[dict[str, Any]]] = {}
    for row in rows(plan):
        by_slot.setdefault(row["position"] // 32, []).append(row)
    for slot in range(40, 840):
        expected = order.read(slot)
        for row in by_slot.get(slot, ()):
            expected[row["column"] : row["column"] + row["length"]] = tokens[row["item"]]
        assert plan.overlay.apply(slot, order.read(slot), order.read).tolist() == expected.tolist()
    assert len({slot // 40 for slot in by_slot}) > 10


def test_15_every_copy_says_whose_it_is(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """All conditions had one label, and nobody could tell that controls held what another condition planted."""
    members = [{"text": " ".join(str(100 * i + k) for k in range(20)), "kind": f"x{1 + i % 2}"} for i in range(6)]
    held = [{"text": members[0]["text"] + " 7 8"}, {"text": " ".join(str(700 + k) for k in range(20))}]
    planted = AddTexts(file=write(members), group_key="kind", repetitions={"x1": 1, "x2": 3}).edits(context)
    controls = AddTexts(file=write(held, "held.jsonl"), repetitions=0).edits(replace(context, name="controls"))
    plan = plan_of(context, tmp_path, planted, controls)
    copies: dict[tuple[str, str, str], int] = {}
    for row in rows(plan):
        key = (row["insertion"], row["group"], row["item"])
        copies[key] = copies.get(key, 0) + 1
    assert sorted(copies.values()) == [1, 1, 1, 3, 3, 3]
    assert {(group, count) for (_, group, _), count in copies.items()} == {("x1", 1), ("x2", 3)}
    said = [each["message"] for each in plan.audit["findings"] if each["check"] == "holdout"]
    assert len(said) == 1
    assert "1 of 2 holdout items of controls" in said[0]
