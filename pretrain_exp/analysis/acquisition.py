"""How a fact is acquired and lost: log-probability traces and the steps at which it was read in, their numbers out.

    l(t)   effectivity = l(t_LAM) - l(t_inj)                    R = 1 at t_LAM of the last injection
           .    __                                              |
         __/|\\_/  \\__     t_LAM: where l peaks within          |\\__        R(t) = (l(t_LAM + t) - l_pre)
      __/   | inj          a window after the injection         |   \\___           / (l(t_LAM) - l_pre)
            inj                                                 +---------- log10 t, slope -a (decay constant)

Definitions of Chang et al. 2024 (arXiv:2406.11813). A trace is known at evaluated states only. State s is the model
before it reads step s, so l(t_inj) is taken at the last evaluated state up to s, and the peak among those after s. What
is read between the same two evaluated states is one injection: its parts cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from pretrain_exp.analysis.forgetting import ten_to

Vector = NDArray[np.float64]
WINDOW = 50  # steps after an injection in which its peak is looked for
OUTLIER_FACTOR = 2.0
ONE_FACT = "one fact: no standard error"
TWO_VALUES = "two values: no standard error"


class Peaks(NamedTuple):
    """Per injection that evaluated states can show, in order: (k,) each."""

    t_inj: NDArray[np.int64]  # last evaluated state before it was read
    t_lam: NDArray[np.int64]  # evaluated state of the highest log-probability within the window
    effectivity: Vector  # l(t_LAM) - l(t_inj) [nats]


def peaks(steps: ArrayLike, trace: ArrayLike, injections: ArrayLike, window: int = WINDOW) -> Peaks:
    """steps: evaluated states (n,), ascending; trace: log-probability there (n,), NaN where missing.

    injections: steps at which the fact was read. Left out are those without an evaluated state within `window` steps
    before them, or none within `window` steps after. ValueError where steps do not ascend.
    """
    t, values = np.asarray(steps, np.int64), np.asarray(trace, float)
    if np.any(np.diff(t) <= 0):
        raise ValueError("evaluated steps must ascend")
    t, values = t[~np.isnan(values)], values[~np.isnan(values)]
    found: dict[int, tuple[int, float]] = {}  # by the state before: where the last of them peaks, and its effectivity
    for step in np.unique(np.asarray(injections, np.int64)).tolist():
        before = int(np.searchsorted(t, step, "right")) - 1
        after = np.flatnonzero((t > step) & (t <= step + window))
        if before >= 0 and step - t[before] <= window and len(after):
            best = int(after[values[after].argmax()])
            found[before] = (best, float(values[best] - values[before]))
    before_of = np.array(sorted(found), dtype=np.int64)
    best_of = np.array([found[i][0] for i in sorted(found)], dtype=np.int64)
    return Peaks(t[before_of], t[best_of], np.array([found[i][1] for i in sorted(found)], dtype=float))


class Retained(NamedTuple):
    """(k,) each: steps since the last peak, and the share of the gain that is left then."""

    since: NDArray[np.int64]
    share: Vector


def retainability(steps: ArrayLike, trace: ArrayLike, injections: ArrayLike, window: int = WINDOW) -> Retained:
    """R at every evaluated state after the last peak. l_pre is the last evaluated state up to the first injection.

    Nothing where the last injection has no peak (see `peaks`), no state comes before the first, or nothing was gained.
    """
    nothing = Retained(np.empty(0, np.int64), np.empty(0))
    t, values = np.asarray(steps, np.int64), np.asarray(trace, float)
    given = np.unique(np.asarray(injections, np.int64))
    if not len(given):
        return nothing
    last = peaks(t, values, given[-1:], window)
    early = np.flatnonzero((t <= given[0]) & ~np.isnan(values))
    if not len(last.t_lam) or not len(early):
        return nothing
    before, top = values[early[-1]], values[t == last.t_lam[0]][0]
    if top <= before:
        return nothing
    later = (t > last.t_lam[0]) & ~np.isnan(values)
    return Retained(t[later] - last.t_lam[0], (values[later] - before) / (top - before))


def without_outliers(values: ArrayLike, factor: float = OUTLIER_FACTOR) -> NDArray[np.bool_]:
    """Which values lie within `factor` interquartile ranges of the quartiles (NumPy's linear quantiles)."""
    x = np.asarray(values, float)
    if not len(x):
        return np.zeros(0, bool)
    low, high = np.quantile(x, [0.25, 0.75])
    return (x >= low - factor * (high - low)) & (x <= high + factor * (high - low))


@dataclass(frozen=True)
class Decay:
    """R = intercept - constant * log10 t. se: of the constant, clustered; NaN where it cannot be said, `flag` why."""

    constant: float
    se: float
    intercept: float
    n: int
    clusters: int
    flag: str = ""

    @property
    def lost_at(self) -> float:
        """Steps after which nothing is left by the fit [steps]; NaN where nothing decays, inf beyond any number."""
        return ten_to(self.intercept / self.constant) if self.constant > 0 else float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of the constant on clusters - 1 degrees of freedom; NaN for fewer than two clusters."""
        if self.clusters < 2 or np.isnan(self.se):
            return float("nan"), float("nan")
        half = float(student.ppf(0.5 + level / 2, self.clusters - 1) * self.se)
        return self.constant - half, self.constant + half


def fit_decay(since: ArrayLike, share: ArrayLike, cluster: ArrayLike) -> Decay:
    """Least squares of R (n,) on log10 of the steps since the peak (n,), 1 or more.

    cluster: (n,) fact of each observation; the standard error is the sandwich of Liang and Zeger (1986) with the factor
    G / (G - 1) * (n - 1) / (n - 2), for the values of one fact move together.
    """
    x, y = np.log10(np.asarray(since, float)), np.asarray(share, float)
    names, groups = np.unique(np.asarray(cluster), return_inverse=True)
    n, size = len(x), len(names)
    nan = float("nan")
    if n < 2 or np.ptp(x) == 0:
        return Decay(nan, nan, nan, n, size, "fewer than two times since the peak")
    design = np.column_stack([np.ones(n), x])  # (n, 2)
    bread = np.linalg.inv(design.T @ design)
    intercept, slope = bread @ design.T @ y
    if size < 2 or n < 3:
        return Decay(float(-slope), nan, float(intercept), n, size, ONE_FACT if size < 2 else TWO_VALUES)
    scores = np.zeros((size, 2))
    np.add.at(scores, groups, design * (y - design @ [intercept, slope])[:, None])
    covariance = bread @ (scores.T @ scores) @ bread * size / (size - 1) * (n - 1) / (n - 2)
    return Decay(float(-slope), float(np.sqrt(covariance[1, 1])), float(intercept), n, size)
