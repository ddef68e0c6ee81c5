"""Members against non-members: scores of both in, how well one tells them apart out.

A score is higher for what is more likely a member (a negative loss, Min-k %, log-probability minus a reference's).

    AUC        U / (n1 n0), ties count half (Mann and Whitney 1947)
    TPR @ FPR  share of members above the threshold that at most a share FPR of the others exceeds (Carlini et al. 2022)
    exposure   log2 |R| - log2 rank of a canary among |R| candidates (Carlini et al. 2019)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

_BLOCK = 4_000_000  # resampled scores held in memory at once


@dataclass(frozen=True)
class Separation:
    """auc with a bootstrap interval; tpr: {FPR: (TPR, low, high)}. NaN where one side is empty.

    degenerate: the scores do not vary, or the resampled values do not, so there is no interval.
    """

    auc: float
    low: float
    high: float
    tpr: dict[float, tuple[float, float, float]]
    members: int
    others: int
    resamples: int
    seed: int
    degenerate: bool


def auc(members: ArrayLike, others: ArrayLike) -> float:
    """Probability that a member scores above a non-member; NaN where one side is empty."""
    x, y = np.asarray(members, float), np.asarray(others, float)
    if not len(x) or not len(y):
        return math.nan
    ranks = rankdata(np.concatenate([x, y]))[: len(x)]
    return float((ranks.sum() - len(x) * (len(x) + 1) / 2) / (len(x) * len(y)))


def tpr_at_fpr(members: ArrayLike, others: ArrayLike, fpr: float) -> float:
    """Share of members above the lowest threshold that at most fpr of the others exceed; NaN where a side is empty."""
    x, y = np.asarray(members, float), np.sort(np.asarray(others, float))
    if not len(x) or not len(y):
        return math.nan
    allowed = math.floor(fpr * len(y) + 1e-9)  # others that may lie above
    threshold = y[len(y) - 1 - allowed] if allowed < len(y) else -math.inf
    return float((x > threshold).mean())


def separation(
    members: ArrayLike,
    others: ArrayLike,
    fprs: tuple[float, ...] = (0.001, 0.01),
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Separation:
    """AUC and TPRs with percentile bootstrap intervals, members and others resampled apart."""
    x, y = np.asarray(members, float), np.asarray(others, float)
    nothing = (math.nan, math.nan)
    point = {fpr: tpr_at_fpr(x, y, fpr) for fpr in fprs}
    if not len(x) or not len(y):
        rows = {fpr: (value, *nothing) for fpr, value in point.items()}
        return Separation(math.nan, *nothing, rows, len(x), len(y), 0, seed, True)
    values = _resampled(x, y, fprs, resamples, np.random.default_rng(seed))
    bounds = [_interval(values[:, i], level) for i in range(values.shape[1])]
    rows = {fpr: (point[fpr], *bounds[1 + i]) for i, fpr in enumerate(fprs)}
    return Separation(auc(x, y), *bounds[0], rows, len(x), len(y), resamples, seed, math.isnan(bounds[0][0]))


def _resampled(
    x: NDArray[np.float64], y: NDArray[np.float64], fprs: tuple[float, ...], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """AUC and TPRs of bootstrap samples, (resamples, 1 + len(fprs)).

    A sample is how often each value was drawn, so nothing is sorted again: running sums over the sorted values say how
    many lie below. In blocks, so that memory stays bounded.
    """
    x, y, n, m = np.sort(x), np.sort(y), len(x), len(y)
    below, upto = np.searchsorted(y, x, "left"), np.searchsorted(y, x, "right")  # others below each, and not above it
    block = max(1, _BLOCK // (n + m))
    found = [np.empty((0, 1 + len(fprs)))]
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn_x = rng.multinomial(n, np.full(n, 1 / n), size=size)
        drawn_y = rng.multinomial(m, np.full(m, 1 / m), size=size)
        sums_x = np.concatenate([np.zeros((size, 1), np.int64), drawn_x.cumsum(1)], axis=1)
        sums_y = np.concatenate([np.zeros((size, 1), np.int64), drawn_y.cumsum(1)], axis=1)
        columns = [(drawn_x * (sums_y[:, below] + sums_y[:, upto])).sum(1) / (2 * n * m)]
        for fpr in fprs:
            rank = m - math.floor(fpr * m + 1e-9)  # of the threshold among the others, from below; 0: there is none
            threshold = y[(sums_y[:, 1:] < rank).sum(1)] if rank > 0 else np.full(size, -np.inf)
            columns.append(1 - sums_x[np.arange(size), np.searchsorted(x, threshold, "right")] / n)
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def exposure(rank: ArrayLike, candidates: int) -> NDArray[np.float64]:
    """log2 |R| - log2 rank, ranks from 1: 20 bits for rank 1 of 2^20, 1 / ln 2 = 1.4427 bits on average by chance."""
    ranks = np.asarray(rank, float)
    if ranks.size and (ranks.min() < 1 or ranks.max() > candidates):
        raise ValueError(f"ranks lie in 1 to {candidates}, got {ranks.min()} to {ranks.max()}")
    return math.log2(candidates) - np.log2(ranks)


def rank_among(score: float, candidates: ArrayLike) -> int:
    """The rank, from 1, of a score among those of other candidates; ties count against it."""
    return 1 + int((np.asarray(candidates, float) >= score).sum())


def min_k(log_probabilities: ArrayLike, k: float) -> float:
    """Mean of the lowest share k of a text's token log-probabilities, at least one (Min-k %, Shi et al. 2024)."""
    values = np.sort(np.asarray(log_probabilities, float))
    if not len(values):
        return math.nan
    return float(values[: max(1, math.floor(k * len(values)))].mean())


def _interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    if not len(values) or np.ptp(values) == 0:
        return math.nan, math.nan
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
