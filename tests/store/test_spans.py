"""Spans are sets of bytes: compared with Python's sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.store.spans import Span, join, pieces, subtract, total

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def members(some: list[Span]) -> set[int]:
    return {byte for start, stop in some for byte in range(start, stop)}


@given(spans, spans)
def test_join_and_subtract_are_those_of_sets(a: list[Span], b: list[Span]) -> None:
    for found, expected in ((join(a), members(a)), (subtract(a, b), members(a) - members(b))):
        assert members(found) == expected
        assert total(found) == len(expected), "no overlap"
        assert all(x[1] < y[0] for x, y in itertools.pairwise(found)), "sorted, none touches the next"


@given(spans, st.integers(1, 7))
def test_pieces_are_the_same_bytes_in_their_order(some: list[Span], size: int) -> None:
    cut = list(pieces(join(some), size))
    assert [byte for start, stop in cut for byte in range(start, stop)] == sorted(members(some))
    assert all(0 < stop - start <= size for start, stop in cut)
