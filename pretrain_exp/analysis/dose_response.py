"""How the score rises with the dose: right or wrong per item and dose in, slope, r50 and trend out.

logit P(right) = a + b log(1 + dose)           b: log-odds gained per e-fold of (1 + dose)
r50 = exp(-a / b) - 1                          the dose at which the fitted accuracy is one half
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import norm

_ITERATIONS = 60
_SEPARATED = 30.0  # a linear predictor beyond this means that the likelihood has no maximum


@dataclass(frozen=True)
class LogitFit:
    """Coefficients (a, b) and their covariance; `flag` says why there is none ("" when all is well)."""

    intercept: float
    slope: float
    covariance: NDArray[np.float64]  # (2, 2), clustered by item
    n: int  # observations
    clusters: int
    flag: str = ""

    @property
    def slope_se(self) -> float:
        return float(np.sqrt(self.covariance[1, 1]))

    def predict(self, dose: ArrayLike) -> NDArray[np.float64]:
        """Fitted accuracy at these doses."""
        return expit(self.intercept + self.slope * np.log1p(np.asarray(dose, float)))


@dataclass(frozen=True)
class R50:
    estimate: float
    low: float
    high: float
    flag: str = ""


@dataclass(frozen=True)
class Trend:
    z: float
    p: float
    flag: str = ""


def fit_logit(right: ArrayLike, dose: ArrayLike, cluster: ArrayLike) -> LogitFit:
    """Logistic regression of right (n,) in {0, 1} on log(1 + dose), by Newton's method.

    cluster: (n,) item of each observation; an item that is scored in several seeds counts as one. Standard errors are
    the sandwich of Liang and Zeger (1986) with the small-sample factor G / (G - 1) * (n - 1) / (n - 2).
    """
    y, x = np.asarray(right, float), np.log1p(np.asarray(dose, float))
    groups, member = np.unique(np.asarray(cluster), return_inverse=True)
    nothing = np.full((2, 2), np.nan)
    n = len(y)
    if len(np.unique(x)) < 2:
        return LogitFit(np.nan, np.nan, nothing, n, len(groups), "only one dose")
    if y.min() == y.max():
        return LogitFit(np.nan, np.nan, nothing, n, len(groups), "every answer is the same")
    design = np.column_stack([np.ones(n), x])
    beta = np.zeros(2)
    for _ in range(_ITERATIONS):
        fitted = expit(design @ beta)
        information = (design * (fitted * (1 - fitted))[:, None]).T @ design
        if np.linalg.cond(information) > 1e14:
            return LogitFit(np.nan, np.nan, nothing, n, len(groups), "the doses separate right from wrong")
        step = np.linalg.solve(information, design.T @ (y - fitted))
        beta = beta + step
        if np.abs(design @ beta).max() > _SEPARATED:
            return LogitFit(np.nan, np.nan, nothing, n, len(groups), "the doses separate right from wrong")
        if np.abs(step).max() < 1e-10:
            break
    fitted = expit(design @ beta)
    bread = np.linalg.inv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    scores = np.zeros((len(groups), 2))
    np.add.at(scores, member, design * (y - fitted)[:, None])
    g = len(groups)
    factor = g / (g - 1) * (n - 1) / (n - 2) if g > 1 and n > 2 else np.nan
    return LogitFit(float(beta[0]), float(beta[1]), factor * bread @ (scores.T @ scores) @ bread, n, g)


def r50(fit: LogitFit, level: float = 0.95) -> R50:
    """Dose of fitted accuracy 1/2, with Fieller's interval (1954) for -a / b on the scale of log(1 + dose).

    No bound lies below dose 0. Where the slope's own interval holds 0 the set is not bounded: all three are NaN and the
    flag says so.
    """
    if fit.flag:
        return R50(np.nan, np.nan, np.nan, fit.flag)
    a, b, v = fit.intercept, fit.slope, fit.covariance
    z2 = norm.ppf(0.5 + level / 2) ** 2
    # all x with (a + b x)^2 <= z^2 Var(a + b x):  A x^2 + 2 B x + C <= 0
    quadratic, linear, constant = b * b - z2 * v[1, 1], a * b - z2 * v[0, 1], a * a - z2 * v[0, 0]
    root = linear * linear - quadratic * constant
    if quadratic <= 0 or root < 0:
        return R50(np.nan, np.nan, np.nan, "not determined: the slope's interval holds 0")
    low, high = (-linear - np.sqrt(root)) / quadratic, (-linear + np.sqrt(root)) / quadratic
    low = from_dose_0(low, -a / b)
    flag = "above one half already at dose 0" if a > 0 < b else ""
    return R50(_dose(-a / b), _dose(low), _dose(high), flag)


def from_dose_0(low: float, x: float) -> float:
    """The lower bound of x = log(1 + dose): no dose lies below 0, unless x itself does."""
    return max(low, 0.0) if x >= 0 else low


def _dose(x: float) -> float:
    return float(np.expm1(min(x, 700.0)))


def cochran_armitage(right: ArrayLike, dose: ArrayLike) -> Trend:
    """Trend of a proportion over doses, scores log(1 + dose): z and two-sided p (Cochran 1954, Armitage 1955).

    right: (n,) in {0, 1}; dose: (n,). One observation per item: within one run only.
    """
    y, x = np.asarray(right, float), np.log1p(np.asarray(dose, float))
    p = y.mean()
    variance = p * (1 - p) * ((x - x.mean()) ** 2).sum()
    if not variance > 0:
        return Trend(np.nan, np.nan, "only one dose, or every answer is the same")
    z = float((x - x.mean()) @ y / np.sqrt(variance))
    return Trend(z, float(2 * norm.sf(abs(z))))
