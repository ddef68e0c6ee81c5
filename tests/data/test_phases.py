"""Phases against counting by hand: every step, slot, row and position of a run, enumerated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError

TABLES = {
    "one phase": [(0, 4, 8)],
    "batch ramp": [(0, 1, 8), (2, 3, 8), (3, 5, 8)],
    "longer sequences": [(0, 4, 8), (3, 2, 16)],
    "both": [(0, 2, 4), (1, 3, 8), (5, 1, 2)],
}
STEPS = 9


def by_hand(table: list[tuple[int, int, int]]) -> list[tuple[int, int, int, int]]:
    """(step, row, slot, position of its column 0, ...) of every sequence of STEPS steps."""
    rows, slot, position = [], 0, 0
    for step in range(STEPS):
        _, batch_size, length = [phase for phase in table if phase[0] <= step][-1]
        for row in range(batch_size):
            rows.append((step, row, slot, position, length))
            slot, position = slot + 1, position + length
    return rows


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_sequence_of_a_run(table: list[tuple[int, int, int]]) -> None:
    phases = Phases([Phase(*row) for row in table])
    for step, row, slot, position, length in by_hand(table):
        assert phases.slots(step)[row] == slot
        assert phases.sequence_length(step) == length
        if row == 0:
            assert (phases.first_slot(step), phases.position_of_step(step)) == (slot, position)
        assert [x.tolist() for x in phases.step_row(np.array([slot]))] == [[step], [row]]
        columns = np.arange(length)
        assert phases.position(np.full(length, slot), columns).tolist() == list(range(position, position + length))
        slots, back = phases.locate(np.arange(position, position + length))
        assert set(slots.tolist()) == {slot}
        assert back.tolist() == columns.tolist()
    assert len(phases.slots(STEPS - 1)) == phases.batch_size(STEPS - 1)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**14), min_size=1, max_size=20),
)
def test_locate_and_position_are_inverses(gaps: list[tuple[int, int, int]], positions: list[int]) -> None:
    first, table = 0, []
    for gap, batch_size, length in gaps:
        table.append(Phase(first, batch_size, length))
        first += gap
    phases = Phases(table)
    slots, columns = phases.locate(np.array(positions))
    assert phases.position(slots, columns).tolist() == positions
    steps, rows = phases.step_row(slots)
    for step, row, slot in zip(steps.tolist(), rows.tolist(), slots.tolist(), strict=True):
        assert phases.slots(step)[row] == slot


def test_json_round_trip() -> None:
    phases = Phases([Phase(0, 4, 8), Phase(3, 2, 16)])
    assert Phases.from_json(json.loads(json.dumps(phases.to_json()))) == phases
    assert phases != Phases([Phase(0, 4, 8)])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "at least one phase"),
        ([(1, 4, 8)], "begin at step 0"),
        ([(0, 4, 8), (0, 2, 8)], "after the one before"),
        ([(0, 4, 8), (5, 2, 8), (3, 2, 8)], "after the one before"),
        ([(0, 0, 8)], "at least 1"),
        ([(0, 4, 0)], "at least 1"),
    ],
)
def test_wrong_tables(table: list[tuple[int, int, int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Phases([Phase(*row) for row in table])


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.first_slot(-1),
        lambda p: p.locate(np.array([-1])),
        lambda p: p.step_row(np.array([3, -1])),
        lambda p: p.position(np.array([0]), np.array([8])),
        lambda p: p.position(np.array([12]), np.array([16])),
    ],
)
def test_outside_of_the_run(call: object) -> None:
    with pytest.raises(ValueError):
        call(Phases([Phase(0, 4, 8), Phase(3, 2, 16)]))  # type: ignore[operator]
