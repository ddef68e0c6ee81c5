"""How an effect fades: effects at distances from the last exposure in, fitted curves and what can be read off them out.

    exponential   effect = a exp(-x / tau)      half-life = tau ln 2
    logarithmic   effect = a + b log10 x        half-life where it is half of its value at `origin`; zero at 10^(-a/b)

x is the distance from the last exposure [tokens or steps].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeWarning, curve_fit


@dataclass(frozen=True)
class Decay:
    """A fitted curve. parameters: (a, tau) or (a, b); errors: their standard errors; NaN where it has none.

    half_life, zero: in the unit of x; NaN where the curve never gets there. residual: standard deviation of what is
    left, in the unit of the effect.
    """

    name: str
    parameters: tuple[float, float]
    errors: tuple[float, float]
    half_life: float
    zero: float
    residual: float
    n: int


def exponential(x: ArrayLike, effect: ArrayLike) -> Decay:
    """Least squares of a exp(-x / tau); an effect that does not fade has an infinite tau. ValueError below 3 points."""
    x, y = _points(x, effect)
    scale = float(x.max())
    start = (float(y[np.argmin(x)]), 1.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # no error can be given: it is inf
            (a, rate), covariance = curve_fit(_falling(scale), x, y, start, maxfev=10_000)
    except RuntimeError:
        nan = math.nan
        return Decay("exponential", (nan, nan), (nan, nan), nan, nan, nan, len(x))
    errors = np.sqrt(np.diag(covariance))
    tau = scale / rate if rate > 0 else math.inf
    tau_error = scale / rate**2 * errors[1] if rate > 0 else math.nan
    residual = y - a * np.exp(-rate * x / scale)
    half = tau * math.log(2) if math.isfinite(tau) else math.nan
    return Decay(
        "exponential", (float(a), float(tau)), (float(errors[0]), float(tau_error)), half, math.nan,
        _spread(residual), len(x),
    )  # fmt: skip


def _falling(scale: float) -> Callable[..., NDArray[np.float64]]:
    return lambda u, a, rate: a * np.exp(-rate * u / scale)


def logarithmic(x: ArrayLike, effect: ArrayLike, origin: float = 1.0) -> Decay:
    """Least squares of a + b log10 x. origin: the distance from which the half-life counts.

    ValueError below 3 points, or where an x is not positive.
    """
    x, y = _points(x, effect)
    if x.min() <= 0 or origin <= 0:
        raise ValueError(f"a logarithmic curve needs distances above 0, got {x.min()} and origin {origin}")
    design = np.stack([np.ones_like(x), np.log10(x)], axis=1)
    (a, b), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ (a, b)
    variance = float(residual @ residual) / (len(x) - 2) if len(x) > 2 else math.nan
    errors = np.sqrt(np.diag(np.linalg.pinv(design.T @ design)) * variance)
    begin = float(a + b * math.log10(origin))
    falls = begin * b < 0  # towards zero
    half = ten_to((begin / 2 - a) / b) if falls else math.nan
    zero = ten_to(-a / b) if falls else math.nan
    return Decay(
        "logarithmic", (float(a), float(b)), (float(errors[0]), float(errors[1])), float(half), float(zero),
        _spread(residual), len(x),
    )  # fmt: skip


def ten_to(exponent: float) -> float:
    """10 ** exponent; inf where it is larger than a float: a curve so flat never gets there."""
    return float(10.0**exponent) if exponent < 300 else math.inf


def _points(x: ArrayLike, effect: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(x, float), np.asarray(effect, float)
    kept = np.isfinite(a) & np.isfinite(b)
    if a.shape != b.shape or kept.sum() < 3:
        raise ValueError(f"a curve needs at least 3 points (x, effect), got {int(kept.sum())} of shape {a.shape}")
    return a[kept], b[kept]


def _spread(residual: NDArray[np.float64]) -> float:
    return float(np.sqrt(residual @ residual / max(1, len(residual) - 2)))
