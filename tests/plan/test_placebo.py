"""What a placebo reads: one text for all copies of an item, however they lie, and no text twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import check_placebo_room, placebo_plan

SLOTS = 400  # of an epoch; the run reads 40 to 240


def compiled(folder: Path | str, *asked: Edits) -> Plan:
    return compile_plan(asked, PHASES, WINDOW, 0, "treated", folder)


def read(plan: Plan) -> np.ndarray:
    """Every token of the epoch as an arm reads it; the stream is range(n)."""

    def row(slot: int) -> np.ndarray:
        return np.arange(slot * S, slot * S + S, dtype=np.uint32)

    return np.concatenate([plan.overlay.apply(slot, row(slot), row) for slot in range(SLOTS)])


def texts(plan: Plan, tokens: np.ndarray) -> dict[tuple[str, str], set[tuple[int, ...]]]:
    """What stands where the plan has the copies of each item."""
    found: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for row in plan.ledger().to_pylist():
        span = tokens[row["position"] : row["position"] + row["length"]]
        found.setdefault((row["insertion"], row["item"]), set()).add(tuple(span.tolist()))
    return found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_copy_of_an_item_reads_one_text_that_nothing_else_reads(data: st.DataObject) -> None:
    """Explicit copies anywhere, across the ends of sequences too, beside random ones; items up to three sequences."""
    lengths = data.draw(st.lists(st.integers(1, 3 * S), min_size=1, max_size=4))
    copies = [data.draw(st.integers(1, 3)) for _ in lengths]
    positions, at = [], SPAN[0]
    for length, count in zip(lengths, copies, strict=True):
        for _ in range(count):
            at += data.draw(st.integers(0, 40))
            positions.append(at)
            at += length
    asked = [edits("explicit", lengths, copies, positions=positions), edits("random", [5, S, 17], [7, 2, 3])]
    with tempfile.TemporaryDirectory() as folder:
        plan = compiled(folder, *asked)
        placebo = placebo_plan(plan, SLOTS, folder)
        assert placebo.audit["ok"], placebo.audit["findings"]
        before, after = read(plan), read(placebo)
        changed = [{int(p) for p in np.flatnonzero(tokens != np.arange(SLOTS * S))} for tokens in (before, after)]
        found = texts(plan, after)
    assert changed[0] == changed[1], "the same spans"
    assert all(len(each) == 1 for each in found.values()), "all copies alike"
    used = [token for each in found.values() for text in each for token in text]
    assert len(used) == len(set(used)), "of no two items"
    assert min(used) >= SPAN[1], "that the run does not read"


@pytest.mark.parametrize(("length", "rows"), [(S, 2), (S + 1, 3), (2 * S, 4)])
def test_a_long_text_is_cut_where_its_source_ends_as_well(tmp_path: Path, length: int, rows: int) -> None:
    plan = compiled(tmp_path, edits("a", [length], positions=[SPAN[0] + 5]))
    ledger = placebo_plan(plan, SLOTS, tmp_path).ledger().to_pylist()
    assert len(ledger) == rows
    assert sum(row["length"] for row in ledger) == length
    assert all(row["source_column"] + row["length"] <= S for row in ledger)


def test_there_must_be_room_for_what_is_still_to_come(tmp_path: Path) -> None:
    plan = compiled(tmp_path, edits("a", [20] * 10))
    check_placebo_room(plan, 250, {("loop", f"{i}"): 20 for i in range(3)})  # ten sequences after the run
    check_placebo_room(plan, 250, {("a", "a0"): 20})  # planted already
    with pytest.raises(UserError, match="leaves 320 tokens after it and 1,280 before it; the placebo needs") as error:
        check_placebo_room(plan, 250, {("loop", f"{i}"): 20 for i in range(60)})
    assert error.value.key == "arms.placebo"


def test_texts_that_fit_no_sequence_that_is_left_are_refused_as_what_they_are(tmp_path: Path) -> None:
    """21 tokens each: one a sequence, so 11 of them do not fit in 10 sequences though their tokens are fewer."""
    few, more = (compiled(tmp_path, edits("a", [21] * n)) for n in (11, 41))
    assert (placebo_plan(few, 250, tmp_path).overlay.arrays["ref"] < 40).all(), "before the run there is room"
    with pytest.raises(UserError, match="find no place in what the run does not read: the range is full") as error:
        placebo_plan(more, 250, tmp_path)
    assert (error.value.key, error.value.value) == ("arms.placebo", True)
    assert error.value.fix is not None
    assert "arms.placebo=false" in error.value.fix
