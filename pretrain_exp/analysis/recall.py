"""Recall at k of planted items: what an attribution method scored and what was planted in, the share it found out.

    scores (query x row of training data)  +  relevance.parquet, queries/ of an export   -->   Recall

An item is found where a row that holds a copy of it is among the k rows of highest score for its query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from pretrain_exp.analysis.contrasts import FACTS, ITEMS, NO_VARIANCE
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.proportions import wilson
from pretrain_exp.errors import UserError
from pretrain_exp.items.facts import fact_of


@dataclass(frozen=True)
class Recall:
    """recall: share of the n items found; low, high: its interval by `method`, NaN where `flag` says why.

    counted: "items", or "facts" where several queries ask for one: its value is then the mean over them.
    rows:    mean share of an item's rows that are among the k best (at most k over how many there are).
    chance:  recall of rows in random order.
    unasked: queries without a relevant row (of dose 0): they are controls, and not counted.
    """

    k: int
    n: int
    counted: str
    recall: float
    low: float
    high: float
    level: float
    method: str
    rows: float
    chance: float
    unasked: int
    flag: str = ""


def recall_at_k(scores: ArrayLike, relevance: pa.Table, queries: pa.Table, k: int, level: float = 0.95) -> Recall:
    """scores: (queries, rows), higher is more relevant; row i of either is index i of `relevance`. Ties count against.

    relevance: columns train_index and query_index; queries: columns insertion and item. Rows beyond those of the export
    (a larger pool) are relevant to nothing. Raises UserError where the three do not fit each other.
    """
    s = np.asarray(scores, float)
    query, row = (relevance[name].to_numpy() for name in ("query_index", "train_index"))
    _check(s, query, row, len(queries), k)
    asked = np.unique(query)
    if not len(asked):
        raise UserError("no query has a relevant row, so there is nothing to find", key="relevance", value="0 pairs")
    relevant = [row[query == each] for each in asked]
    found = np.array([_among_best(s[each], rows, k) for each, rows in zip(asked, relevant, strict=True)], float)
    size = np.array([len(rows) for rows in relevant])
    names = zip(queries["insertion"].to_pylist(), queries["item"].to_pylist(), strict=True)
    of_query = [f"{insertion}\n{fact_of(item)}" for insertion, item in names]
    _, fact = np.unique([of_query[each] for each in asked], return_inverse=True)
    hits, share, chance = (
        np.bincount(fact, values) / np.bincount(fact)
        for values in (found > 0, found / size, hypergeom.sf(0, s.shape[1], size, k))
    )
    n, counted = len(hits), ITEMS if len(hits) == len(asked) else FACTS
    low, high, method, flag = _interval(hits, counted, level)
    return Recall(
        k, n, counted, float(hits.mean()), low, high, level, method, float(share.mean()), float(chance.mean()),
        len(queries) - len(asked), flag,
    )  # fmt: skip


def _interval(hits: NDArray[np.float64], counted: str, level: float) -> tuple[float, float, str, str]:
    """Low, high, method, flag. Means over the probes of a fact are neither right nor wrong: t over facts."""
    if counted == ITEMS:
        low, high = wilson(hits.sum(), len(hits), level)
        return float(low), float(high), "Wilson score interval over items", ""
    if len(hits) == 1:
        return math.nan, math.nan, "none: one fact", "one fact"
    interval = t_interval(hits, level)
    flag = NO_VARIANCE if interval.degenerate else ""
    return float(interval.low), float(interval.high), "t interval over facts", flag


def _among_best(scores: NDArray[np.float64], rows: NDArray[np.int64], k: int) -> int:
    """How many of these rows are among the k best; of equal scores the others stand first."""
    relevant = np.zeros(len(scores), bool)
    relevant[rows] = True
    return int(relevant[np.lexsort((relevant, -scores))[:k]].sum())


def _check(scores: NDArray[np.float64], query: NDArray[np.int64], row: NDArray[np.int64], queries: int, k: int) -> None:
    if scores.ndim != 2 or len(scores) != queries:
        raise UserError(
            "scores do not fit the queries", key="scores", value=f"shape {scores.shape}",
            fix=f"{queries} queries x rows of training data; turn rows x queries round with .T",
        )  # fmt: skip
    if len(row) and (row.max() >= scores.shape[1] or query.max() >= queries):
        fix = "relevance and queries of one export, scores of all its train_rows"
        needed = f"{row.max() + 1} rows and {query.max() + 1} queries named, scores are {scores.shape}"
        raise UserError("relevance names what has no score", key="relevance", value=needed, fix=fix)
    if np.isnan(scores).any():
        value = f"{int(np.isnan(scores).sum())} of {scores.size} are NaN"
        raise UserError("scores must be numbers", key="scores", value=value, fix="-inf for what was not scored")
    if not 1 <= k <= scores.shape[1]:
        raise UserError("k must be a number of rows", key="k", value=k, fix=f"1 to {scores.shape[1]}")
