"""ShuffledOrder: every sequence once an epoch, found again wherever it went, the same for all who ask."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.data.order import DataOrder, ShuffledOrder, Source, order_from_json
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.errors import UserError

Stream = Callable[..., TokenFiles]
SEEDS = [None, 0, 3]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lengths", [[103], [1, 50, 0, 49, 3]], ids=str)
def test_an_epoch_reads_every_sequence_once(stream: Stream, lengths: list[int], seed: int | None) -> None:
    order = ShuffledOrder(stream(lengths), 8, seed)
    assert (order.num_sequences, order.remainder) == (12, 7)
    epochs = [[order.read(slot).tolist() for slot in range(12 * epoch, 12 * (epoch + 1))] for epoch in range(3)]
    sequences = [list(range(i, i + 8)) for i in range(0, 96, 8)]
    for epoch in epochs:
        assert sorted(epoch) == sequences
    if seed is None:
        assert epochs == [sequences] * 3
    else:
        assert sequences != epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_seeds_differ_and_repeat(stream: Stream) -> None:
    files = stream([800])
    read = {seed: [ShuffledOrder(files, 8, seed).sequence(slot) for slot in range(100)] for seed in (0, 1, 2)}
    assert read[0] != read[1] != read[2] != read[0]
    assert read[1] == ShuffledOrder(files, 8, 1).sequences(np.arange(100)).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_many_slots_as_one_by_one_in_any_order(stream: Stream, seed: int | None) -> None:
    order = ShuffledOrder(stream([103]), 8, seed)
    slots = np.random.default_rng(0).integers(0, 60, 200)
    assert order.sequences(slots).tolist() == [order.sequence(slot) for slot in slots.tolist()]
    for epoch in range(5):
        there = order.slots_of(np.arange(12), epoch)
        assert order.sequences(there).tolist() == list(range(12))
        assert set((there // 12).tolist()) == {epoch}


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (4, 1), (2, 3), (3, 2)])
def test_a_step_reads_the_same_for_any_ranks_and_workers(stream: Stream, ranks: int, workers: int) -> None:
    """Every worker of every rank has an order of its own, which begins in the middle and sees a few slots only."""
    files, phases = stream([103]), Phases([Phase(0, 6, 8)])
    reference = ShuffledOrder(files, 8, 3)
    steps = range(1, 7)  # two epochs and a half
    expected = {step: [reference.read(slot).tolist() for slot in phases.slots(step)] for step in steps}
    found: dict[int, dict[int, list[int]]] = {step: {} for step in steps}
    for rank in range(ranks):
        for worker in range(workers):
            order = pickle.loads(pickle.dumps(reference))
            for step in list(steps)[worker::workers]:
                for row in range(rank, 6, ranks):
                    found[step][row] = order.read(phases.first_slot(step) + row).tolist()
    assert {step: [rows[row] for row in range(6)] for step, rows in found.items()} == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_positions_of_is_what_reading_finds(stream: Stream, seed: int | None) -> None:
    """All spans of the stream over all windows of two epochs and a half, against reading every slot."""
    order = ShuffledOrder(stream([10, 13]), 5, seed)  # four sequences, three tokens of remainder
    where = {slot: order.read(slot).tolist() for slot in range(10)}
    for start in range(0, 23, 2):
        for stop in range(start, 24):
            for first, last in [(0, 8), (0, 10), (3, 9), (4, 4), (5, 6)]:
                wanted = {
                    (slot, column, token)
                    for slot in range(first, last)
                    for column, token in enumerate(where[slot])
                    if start <= token < stop
                }
                spans = order.positions_of(start, stop, first, last)
                covered = [(slot, column + i, where[slot][column + i]) for slot, column, n in spans for i in range(n)]
                assert len(covered) == len(set(covered))
                assert set(covered) == wanted
                assert spans == sorted(spans)
                assert all(n > 0 for *_, n in spans)


@given(st.integers(1, 10**9), st.integers(1, 9000), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_positions_of_round_trip_in_large_streams(sequences: int, length: int, seed: int, slot: int) -> None:
    file = TokenFile("nowhere", "uint16", 0, sequences * length + length // 2, "d", "n")
    order = ShuffledOrder(TokenFiles((file,), 0), length, seed)
    offset = order.stream_offset(slot, length - 1)
    assert order.positions_of(offset, offset + 1, slot, slot + 1) == [(slot, length - 1, 1)]
    epoch = slot // order.num_sequences
    window = (epoch * order.num_sequences, (epoch + 2) * order.num_sequences)
    twice = order.positions_of(offset, offset + 1, *window)
    assert len(twice) == 2
    assert twice[0] == (slot, length - 1, 1)


def test_source_of_a_token(stream: Stream, tmp_path: Path) -> None:
    files = stream([10, 14])
    order = ShuffledOrder(files, 4, None)
    assert order.source(2, 2) == Source("file 1", 0, None, None)
    np.save(tmp_path / "documents.npy", np.array([0, 7, 10, 21]))
    order = ShuffledOrder(replace(files, documents=str(tmp_path / "documents.npy")), 4, None)
    assert order.source(0, 0) == Source("file 0", 0, 0, 0)
    assert order.source(2, 1) == Source("file 0", 9, 1, 2)
    assert order.source(2, 2) == Source("file 1", 0, 2, 0)
    assert order.source(6 + 5, 3) == Source("file 1", 13, 3, 2)  # slot 11 is sequence 5 of the second epoch


@pytest.mark.parametrize("seed", SEEDS)
def test_json_round_trip(stream: Stream, seed: int | None) -> None:
    order = ShuffledOrder(stream([103]), 8, seed)
    other: DataOrder = order_from_json(json.loads(json.dumps(order.to_json())))
    assert other.fingerprint() == order.fingerprint()
    assert [other.read(i).tolist() for i in range(30)] == [order.read(i).tolist() for i in range(30)]


def test_fingerprint_knows_what_decides_the_reading(stream: Stream) -> None:
    files = stream([103])
    orders = [ShuffledOrder(files, 8, 0), ShuffledOrder(files, 8, 1), ShuffledOrder(files, 8, None)]
    orders += [ShuffledOrder(files, 9, 0), ShuffledOrder(stream([100, 3]), 8, 0)]
    assert len({order.fingerprint() for order in orders}) == len(orders)


def test_memory_does_not_grow_with_the_stream() -> None:
    file = TokenFile("nowhere", "uint16", 0, 10**15, "d", "n")
    order = ShuffledOrder(TokenFiles((file,), 0), 4096, 1)
    assert [order.sequence(slot) for slot in (0, 10**11, 10**12)]
    assert len(pickle.dumps(order)) < 2000
    assert order.num_sequences == math.floor(10**15 / 4096)


@pytest.mark.parametrize(
    ("length", "seed", "message"),
    [
        (0, 0, "at least 1"),
        (104, 0, "103 tokens, less than one sequence of 104"),
        (8, -1, "0 to"),
        (8, 1 << 64, "0 to"),
    ],
)
def test_wrong_orders(stream: Stream, length: int, seed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShuffledOrder(stream([103]), length, seed)


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match="unknown kind"):
        order_from_json({"kind": "sorted"})


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.read(-1),
        lambda o: o.sequences(np.array([0, -1])),
        lambda o: o.source(0, 8),
        lambda o: o.positions_of(0, 104, 0, 5),
    ],
)
def test_outside(stream: Stream, call: Callable[[ShuffledOrder], object]) -> None:
    with pytest.raises(IndexError):
        call(ShuffledOrder(stream([103]), 8, 0))
