"""Recall at k of planted items: by hand, with ties, controls and facts, and what does not fit is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pretrain_exp.analysis.recall import recall_at_k
from pretrain_exp.errors import UserError


def relevance(*pairs: tuple[int, int]) -> pa.Table:
    """(train_index, query_index), as in an export."""
    rows = [{"train_index": row, "query_index": query, "copies": 1} for row, query in pairs]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.int64()) for name in ("train_index", "query_index",
                                                                                         "copies")]))  # fmt: skip


def queries(*items: str) -> pa.Table:
    return pa.table({"insertion": ["i"] * len(items), "item": list(items)})


TEN = np.eye(10)  # query q scores row q highest, all others alike
PAIRS = [(q, q) for q in range(10)]
NAMES = [str(q) for q in range(10)]


def test_eight_of_ten_found_with_the_interval_of_wilson() -> None:
    wrong = TEN[[0, 1, 2, 3, 4, 5, 6, 7, 9, 8]]
    found = recall_at_k(wrong, relevance(*PAIRS), queries(*NAMES), k=1)
    assert (found.n, found.counted, found.recall, found.rows, found.unasked) == (10, "items", 0.8, 0.8, 0)
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)
    assert found.method.startswith("Wilson")
    assert found.chance == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("scores", "pairs", "k", "recall", "rows"),
    [
        ([[3, 2, 1, 0]], [(0, 0)], 1, 1.0, 1.0),
        ([[3, 2, 1, 0]], [(1, 0)], 1, 0.0, 0.0),
        ([[3, 2, 1, 0]], [(1, 0)], 2, 1.0, 1.0),
        ([[3, 2, 1, 0]], [(0, 0), (3, 0)], 2, 1.0, 0.5),  # one row of two is enough to find the item
        ([[0, 0, 0, 0]], [(0, 0)], 3, 0.0, 0.0),  # ties count against
        ([[0, 0, 0, 0]], [(0, 0)], 4, 1.0, 1.0),
        ([[-np.inf, 1, -np.inf, 0]], [(3, 0)], 2, 1.0, 1.0),
    ],
)
def test_one_query_by_hand(
    scores: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], k: int, recall: float, rows: float
) -> None:
    found = recall_at_k(scores, relevance(*pairs), queries("a"), k)
    assert (found.recall, found.rows, found.n) == (recall, rows, 1)
    assert found.chance == pytest.approx(1 - comb(4 - len(pairs), k) / comb(4, k))


def test_controls_are_counted_apart_and_further_rows_are_a_larger_pool() -> None:
    scores = [[0, 1, 0], [9, 9, 9], [0, 0, 1]]
    found = recall_at_k(scores, relevance((1, 0), (1, 2)), queries("a", "held out", "b"), k=1)
    assert (found.n, found.recall, found.unasked) == (2, 0.5, 1)


def test_probes_of_one_fact_count_once() -> None:
    asked = queries("f:1", "f:2", "g:1", "g:2")
    scores = [[1, 0], [0, 1], [0, 1], [0, 1]]
    found = recall_at_k(scores, relevance((0, 0), (0, 1), (1, 2), (1, 3)), asked, k=1)
    assert (found.n, found.counted, found.recall, found.method) == (2, "facts", 0.75, "t interval over facts")
    alike = recall_at_k([[1, 0], [1, 0], [0, 1], [0, 1]], relevance((0, 0), (0, 1), (1, 2), (1, 3)), asked, k=1)
    assert (alike.recall, alike.flag, math.isnan(alike.low)) == (1.0, "no variance", True)
    one = recall_at_k([[1, 0], [0, 1]], relevance((0, 0), (0, 1)), queries("f:1", "f:2"), k=1)
    assert (one.n, one.recall, one.flag, math.isnan(one.low)) == (1, 0.5, "one fact", True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"scores": np.zeros((2, 3))}, "do not fit the queries"),
        ({"scores": np.zeros(3)}, "do not fit the queries"),
        ({"scores": [[0, math.nan, 1]]}, "must be numbers"),
        ({"relevance": relevance((3, 0))}, "has no score"),
        ({"relevance": relevance((0, 1))}, "has no score"),
        ({"relevance": relevance()}, "nothing to find"),
        ({"k": 0}, "1 to 3"),
        ({"k": 4}, "1 to 3"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], words: str) -> None:
    given = {"scores": [[0, 1, 2]], "relevance": relevance((0, 0)), "queries": queries("a"), "k": 1}
    with pytest.raises(UserError, match=words):
        recall_at_k(**{**given, **changed})
