"""Scans of the data: every occurrence of every run, none else, read once and kept by content."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.insertion.scan import find_runs, scan, searched


class Rows:
    """A data order over given rows; `reads` counts what was read."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.sequence_length, self.num_sequences, self.reads = rows, rows.shape[1], len(rows), 0

    def read(self, slot: int) -> np.ndarray:
        self.reads += 1
        return self.rows[slot].astype(np.uint32)

    def fingerprint(self) -> str:
        return str(self.rows.tolist())


def naive(rows: np.ndarray, slots: range, runs: list[np.ndarray]) -> list[tuple[int, int, int]]:
    return [
        (slot, column, i)
        for slot in slots
        for column in range(rows.shape[1])
        for i, run in enumerate(runs)
        if np.array_equal(rows[slot][column : column + len(run)], run)
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_occurrence_is_found(data: st.DataObject) -> None:
    """Few different tokens, so that runs overlap themselves and each other; long runs are cut from the rows."""
    size = data.draw(st.integers(1, 80))
    rows = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 1), min_size=size, max_size=size), min_size=3, max_size=5))
    )
    runs = [
        np.array(each)
        for each in data.draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=4))
    ]
    start = data.draw(st.integers(0, size - 1))
    runs.append(rows[1][start : start + data.draw(st.integers(1, 60))])
    slots = range(data.draw(st.integers(0, 1)), len(rows))
    found = find_runs(Rows(rows), slots, runs)
    assert sorted(zip(found.slot, found.column, found.run, strict=True)) == sorted(naive(rows, slots, runs))


def test_a_window_is_read_once_and_another_question_is_another_artifact(tmp_path: Path) -> None:
    order = Rows(np.arange(40 * 8).reshape(40, 8))
    runs = [np.arange(17, 20), np.arange(100, 103)]
    first = find_runs(order, range(2, 30), runs, tmp_path)
    assert (order.reads, len(list(tmp_path.iterdir()))) == (28, 1)
    again = find_runs(order, range(2, 30), runs, tmp_path)
    assert order.reads == 28
    for name in ("run", "slot", "column"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert list(zip(first.run, first.slot, first.column, strict=True)) == [(0, 2, 1), (1, 12, 4)]
    for slots, others in ((range(2, 31), runs), (range(2, 30), runs[:1])):
        before = order.reads
        find_runs(order, slots, others, tmp_path)
        assert order.reads == before + len(slots)
    assert len(list(tmp_path.iterdir())) == 3


def test_findings_of_any_kind_and_of_nothing() -> None:
    order = Rows(np.arange(20 * 4).reshape(20, 4))

    def even(rows: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
        return {"slot": slots[slots % 2 == 0], "first": rows[slots % 2 == 0, 0]}

    found = scan(order, range(3, 9), "even", even)
    assert found["slot"].tolist() == [4, 6, 8]
    assert found["first"].tolist() == [16, 24, 32]
    assert scan(order, range(5, 5), "even", even)["slot"].tolist() == []


def test_an_empty_run_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        find_runs(Rows(np.zeros((2, 4))), range(2), [np.zeros(0)])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_finds_the_same_in_the_same_order(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Later chunks are done first; what a search raises is raised, and nothing is read after it for long."""
    monkeypatch.setattr("pretrain_exp.insertion.scan._CHUNK_TOKENS", 12)  # three rows
    order = Rows(np.arange(50 * 4).reshape(50, 4))
    called: list[int] = []

    def find(rows: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.002 * (slots[0] % 4))
        called.append(int(slots[0]))
        return {"slot": slots[::2], "first": rows[::2, 0]}

    found = searched(order, range(1, 50), find, threads)
    assert found["slot"].tolist() == [slot for low in range(1, 50, 3) for slot in (low, low + 2) if slot < 50]
    assert found["first"].tolist() == (4 * found["slot"]).tolist()
    assert sorted(called) == list(range(1, 50, 3))

    def fail(rows: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
        if slots[0] > 10:
            raise ZeroDivisionError
        return find(rows, slots)

    order.reads = 0
    with pytest.raises(ZeroDivisionError):
        searched(order, range(1, 50), fail, threads)
    assert order.reads <= 12 + 3 * (threads + 2)
