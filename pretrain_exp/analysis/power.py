"""What could have been seen: spread and size of a study in, smallest detectable effect and power out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

_NODES, _HALF_WEIGHTS = np.polynomial.legendre.leggauss(256)
_QUANTILES, _WEIGHTS = (_NODES + 1) / 2, _HALF_WEIGHTS / 2


def mde_paired(variance: ArrayLike, n: ArrayLike, power: float = 0.8, level: float = 0.95) -> NDArray[np.float64]:
    """Minimum detectable effect on n paired differences of this variance: (z_{1-a/2} + z_power) sqrt(variance / n)."""
    z = norm.ppf(0.5 + level / 2) + norm.ppf(power)
    return z * np.sqrt(np.asarray(variance, float) / np.asarray(n, float))


def power_seeds(effect: float, sd: float, seeds: int, level: float = 0.95) -> float:
    """Power of the t test over `seeds` per-seed effects whose standard deviation between seeds is sd (noncentral t).

    Given the chi-square v of the variance the statistic is normal: the power is the mean over v of both tails, by
    Gauss-Legendre quadrature on v's quantiles, which stays stable for large effects and one degree of freedom.
    """
    if seeds < 2:
        return float("nan")
    df = seeds - 1
    critical = student.ppf(0.5 + level / 2, df) * np.sqrt(chi2.ppf(_QUANTILES, df) / df)
    shift = effect / (sd / np.sqrt(seeds))
    return float(_WEIGHTS @ (norm.sf(critical - shift) + norm.cdf(-critical - shift)))


def mde_seeds(sd: float, seeds: int, power: float = 0.8, level: float = 0.95) -> float:
    """Smallest mean effect that the t test over `seeds` sees with this power; NaN for one seed or no spread."""
    if seeds < 2 or not sd > 0:
        return float("nan")
    high = sd
    while power_seeds(high, sd, seeds, level) < power:
        high *= 2
    return float(brentq(lambda effect: power_seeds(effect, sd, seeds, level) - power, 0.0, high, xtol=1e-9 * sd))
