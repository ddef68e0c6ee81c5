"""The trace of Gaussian noise: normalised inner products of gradients and noise in, tests of the null out.

    x = <grad_e loss, w> / (sigma |grad_e loss|)       w = sigma * n, n standard normal, e the clean input embeddings

Whatever the gradient is, x is N(0, 1) for noise that the model has never met: that null is exact, at any sample size.
A model that was trained on e + w has its loss lowered there and the less so the further it goes from it, so at e the
loss falls towards w and x is negative: the alternative is `less`. (Pawelczyk et al. 2024, "Machine unlearning fails to
remove data poisoning attacks"; Train Once, Answer All, 2025, section on the watermark.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.proportions import wilson


@dataclass(frozen=True, kw_only=True)
class WatermarkTest:
    """What n inner products say. low, high: 95 % t interval of the mean; NaN for one value, or where all are equal.

    z_p: one-sided p of the mean under the null. ks_p: two-sided p of Kolmogorov-Smirnov against N(0, 1). tpr: share of
    values beyond the null's quantile of `fpr` on the side of the alternative, with its Wilson interval.
    """

    n: int
    mean: float
    low: float
    high: float
    z_p: float
    ks_p: float
    fpr: float
    tpr: float
    tpr_low: float
    tpr_high: float


def watermark_test(values: ArrayLike, fpr: float = 0.01) -> WatermarkTest:
    """Tests inner products against N(0, 1), alternative `less`. ValueError without values, or for one not finite."""
    x = np.asarray(values, dtype=float)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{len(x)} values, all of which must be finite, are no sample")
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, got {fpr}")
    n, interval = len(x), t_interval(x)
    mean = float(interval.mean)
    found = int((x < special.ndtri(fpr)).sum())
    tpr_low, tpr_high = (float(end) for end in wilson(found, n))
    return WatermarkTest(
        n=n,
        mean=mean,
        low=float(interval.low),
        high=float(interval.high),
        z_p=float(special.ndtr(mean * math.sqrt(n))),
        ks_p=float(stats.kstest(x, "norm").pvalue),
        fpr=fpr,
        tpr=found / n,
        tpr_low=tpr_low,
        tpr_high=tpr_high,
    )
