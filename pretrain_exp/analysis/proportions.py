"""Intervals for proportions: counts of right answers in, 95 % score intervals out.

Every function broadcasts over arrays and gives NaN where n is 0. Counts are integers, proportions lie in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]  # low, high


def wilson(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> Interval:
    """Score interval for a proportion k / n (Wilson 1927): never empty, never outside [0, 1]."""
    k, n = np.asarray(k, float), np.asarray(n, float)
    z = norm.ppf(0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def newcombe(k1: ArrayLike, n1: ArrayLike, k2: ArrayLike, n2: ArrayLike, level: float = 0.95) -> Interval:
    """k1 / n1 - k2 / n2 of two independent samples (Newcombe 1998, Stat. Med. 17:873, method 10)."""
    k1, n1, k2, n2 = (np.asarray(x, float) for x in (k1, n1, k2, n2))
    (low1, high1), (low2, high2) = wilson(k1, n1, level), wilson(k2, n2, level)
    with np.errstate(invalid="ignore", divide="ignore"):
        p1, p2 = k1 / n1, k2 / n2
    low = p1 - p2 - np.hypot(p1 - low1, high2 - p2)
    high = p1 - p2 + np.hypot(high1 - p1, p2 - low2)
    return low, high


def newcombe_paired(
    both: ArrayLike, first: ArrayLike, second: ArrayLike, neither: ArrayLike, level: float = 0.95
) -> Interval:
    """Difference of two proportions on the same items (Newcombe 1998, Stat. Med. 17:2635, method 10).

    both, first, second, neither: items right in both arms, only in the first, only in the second, in neither.
    Returns the interval of (first - second) / n. Wilson intervals of both arms, joined with their correlation phi (its
    numerator less n / 2 when it is positive); so no discordant pair at all still gives an interval that has a width.
    """
    a, b, c, d = (np.asarray(x, float) for x in (both, first, second, neither))
    n = a + b + c + d
    (low1, high1), (low2, high2) = wilson(a + b, n, level), wilson(a + c, n, level)
    with np.errstate(invalid="ignore", divide="ignore"):
        p1, p2 = (a + b) / n, (a + c) / n
        product = (a + b) * (c + d) * (a + c) * (b + d)
        cross = a * d - b * c
        cross = np.where(cross > 0, np.maximum(cross - n / 2, 0.0), cross)
        phi = np.where(product > 0, cross / np.sqrt(product), 0.0)
    down1, up1, down2, up2 = p1 - low1, high1 - p1, p2 - low2, high2 - p2
    low = p1 - p2 - np.sqrt(np.maximum(down1**2 - 2 * phi * down1 * up2 + up2**2, 0.0))
    high = p1 - p2 + np.sqrt(np.maximum(up1**2 - 2 * phi * up1 * down2 + down2**2, 0.0))
    return low, high
