"""Means and differences of means: values in, mean, interval and p out; a sample without variance is flagged.

Where all values are equal no interval can be computed from them: low, high and p are NaN and `degenerate` is true,
so that no zero-width interval is ever printed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

_RELATIVE_ZERO = 1e-12  # a spread below this share of the values' size is rounding


@dataclass(frozen=True)
class MeanInterval:
    """Arrays of the shape of the input without its last axis."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]  # two-sided, of a mean of 0
    sd: NDArray[np.float64]  # of the values (t_interval), or the standard error (welch, bootstrap_mean)
    df: NDArray[np.float64]
    degenerate: NDArray[np.bool_]


def t_interval(values: ArrayLike, level: float = 0.95) -> MeanInterval:
    """Student's interval of the mean over the last axis, (..., n), n - 1 degrees of freedom (Student 1908).

    Used on per-item differences (the paired t test) and on per-seed effects (the seed as the unit).
    """
    x = np.asarray(values, float)
    n = x.shape[-1]
    if n == 0:
        raise ValueError("t_interval needs at least one value, got 0")
    mean = x.mean(-1)
    sd = x.std(-1, ddof=1) if n > 1 else np.full(mean.shape, np.nan)
    return _student(mean, sd / np.sqrt(n), np.full(mean.shape, n - 1.0), np.abs(x).max(-1), level, sd)


def welch(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> MeanInterval:
    """mean(x) - mean(y) of independent samples, (..., n) and (..., m), with variances of their own (Welch 1947)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    n, m = x.shape[-1], y.shape[-1]
    if n < 2 or m < 2:
        raise ValueError(f"welch needs two values or more on each side, got {n} and {m}")
    u, v = x.var(-1, ddof=1) / n, y.var(-1, ddof=1) / m
    with np.errstate(invalid="ignore", divide="ignore"):
        df = (u + v) ** 2 / (u**2 / (n - 1) + v**2 / (m - 1))
    size = np.maximum(np.abs(x).max(-1), np.abs(y).max(-1))
    return _student(x.mean(-1) - y.mean(-1), np.sqrt(u + v), df, size, level, np.sqrt(u + v))


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike, level: float = 0.95) -> MeanInterval:
    """sum(numerator) / sum(denominator) over items, (n,) each, by linearisation (Cochran 1977, section 2.11).

    Loss per token over documents of unequal length: numerator in nats, denominator in tokens.
    """
    y, x = np.asarray(numerator, float), np.asarray(denominator, float)
    n, ratio = len(y), y.sum() / x.sum()
    residual = y - ratio * x
    se = np.sqrt((residual**2).sum() / (n - 1) * n) / x.sum() if n > 1 else np.nan
    size = np.abs(y).max() / max(x.mean(), np.finfo(float).tiny)
    return _student(np.asarray(ratio), np.asarray(se), np.asarray(n - 1.0), np.asarray(size), level, np.asarray(se))


def _student(mean: NDArray, se: NDArray, df: NDArray, size: NDArray, level: float, sd: NDArray) -> MeanInterval:
    degenerate = ~(se > _RELATIVE_ZERO * np.maximum(size, np.finfo(float).tiny))  # NaN (one value) is degenerate too
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.where(degenerate, np.nan, student.ppf(0.5 + level / 2, df) * se)
        p = np.where(degenerate, np.nan, 2 * student.sf(np.abs(mean / se), df))
    return MeanInterval(mean, mean - half, mean + half, p, sd, df, degenerate)
