"""WindowOrder: the window's own sequences at other steps of it, everything else untouched, whatever is inside."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import DataOrder, ShuffledOrder, order_from_json
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.data.window_order import WindowOrder

Stream = Callable[..., TokenFiles]
INNER: dict[str, Callable[[TokenFiles], DataOrder]] = {
    "shuffled": lambda files: ShuffledOrder(files, 5, 3),
    "as it stands": lambda files: ShuffledOrder(files, 5, None),
    "olmo2": lambda files: OlmoOrder(files, 5, 2, 3),
}
WINDOWS = [(3, 9), (0, 1), (6, 21), (0, 30)]  # within an epoch, a single slot, over its end, all


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("kind", INNER)
def test_only_the_window_is_permuted(stream: Stream, kind: str, window: tuple[int, int]) -> None:
    inner = INNER[kind](stream([27, 31]))
    order = WindowOrder(inner, *window, seed=1)
    first, last = window
    read = [order.read(slot).tolist() for slot in range(35)]
    plain = [inner.read(slot).tolist() for slot in range(35)]
    assert read[:first] + read[last:] == plain[:first] + plain[last:]
    assert sorted(read[first:last]) == sorted(plain[first:last])
    assert (read[first:last] != plain[first:last]) == (last - first > 1)
    for slot in range(35):
        assert order.stream_offset(slot, 2) == read[slot][2], "tokens are range(n)"
        assert order.source(slot, 2).offset_in_file == read[slot][2] - (27 if read[slot][2] >= 27 else 0)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("kind", INNER)
def test_positions_of_is_what_reading_finds(stream: Stream, kind: str, window: tuple[int, int]) -> None:
    order = WindowOrder(INNER[kind](stream([27, 31])), *window, seed=1)
    where = {slot: order.read(slot).tolist() for slot in range(35)}
    for start in range(0, 58, 3):
        for stop in (start, start + 1, min(58, start + 7), 58):
            for first, last in [(0, 35), (2, 5), (4, 4), (8, 22), (25, 34), (0, 3)]:
                spans = order.positions_of(start, stop, first, last)
                covered = [(slot, column + i) for slot, column, n in spans for i in range(n)]
                wanted = {
                    (slot, column)
                    for slot in range(first, last)
                    for column, token in enumerate(where[slot])
                    if start <= token < stop
                }
                assert len(covered) == len(set(covered))
                assert set(covered) == wanted
                assert spans == sorted(spans)


def test_seeds_and_windows_are_told_apart_and_found_again(stream: Stream) -> None:
    inner = ShuffledOrder(stream([200]), 5, 3)
    orders = [WindowOrder(inner, 0, 40, 0), WindowOrder(inner, 0, 40, 1), WindowOrder(inner, 0, 39, 0)]
    orders += [WindowOrder(inner, 1, 40, 0), WindowOrder(ShuffledOrder(inner.files, 5, 4), 0, 40, 0)]
    assert len({order.fingerprint() for order in [*orders, inner]}) == 6
    assert len({tuple(order.inner_slot(slot) for slot in range(40)) for order in orders[:4]}) == 4
    for order in orders:
        copy = order_from_json(json.loads(json.dumps(order.to_json())))
        assert copy.fingerprint() == order.fingerprint()
        assert [copy.read(slot).tolist() for slot in range(80)] == [order.read(slot).tolist() for slot in range(80)]


@pytest.mark.parametrize("window", [(3, 3), (5, 2), (-1, 4)])
def test_no_window(stream: Stream, window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        WindowOrder(ShuffledOrder(stream([200]), 5, 3), *window, seed=0)
