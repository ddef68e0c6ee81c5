"""Two arms on the same items: right or wrong in each in, discordant pairs and their tests out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom


@dataclass(frozen=True)
class Pairs:
    """How many items were right in both arms, only in the first, only in the second, in neither."""

    both: int
    first: int  # b of McNemar
    second: int  # c of McNemar
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.first + self.second + self.neither


def count_pairs(first: ArrayLike, second: ArrayLike) -> Pairs:
    """first, second: (n,) of 0 and 1, the same item at the same place."""
    x, y = np.asarray(first, bool), np.asarray(second, bool)
    return Pairs(int((x & y).sum()), int((x & ~y).sum()), int((~x & y).sum()), int((~x & ~y).sum()))


def mcnemar_exact(b: ArrayLike, c: ArrayLike) -> NDArray[np.float64]:
    """Two-sided exact p of b against c discordant pairs: binomial(b + c, 1/2), both tails; 1 where there is none.

    Rejects at most at the nominal rate (McNemar 1947; exact form as in Fagerland, Lydersen and Laake 2013).
    """
    b, c = np.asarray(b, float), np.asarray(c, float)
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5))


def mcnemar_midp(b: ArrayLike, c: ArrayLike) -> NDArray[np.float64]:
    """The exact test with half the probability of what was observed: less conservative, close to the nominal rate."""
    b, c = np.asarray(b, float), np.asarray(c, float)
    k, n = np.minimum(b, c), b + c
    return np.minimum(1.0, 2 * binom.cdf(k, n, 0.5) - binom.pmf(k, n, 0.5))
