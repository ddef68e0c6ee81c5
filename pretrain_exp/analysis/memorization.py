"""Memorization of a text: log-probabilities and greedy completions of its tokens in, how extractable it is out.

(n, p)-discoverable    1 - (1 - p_z)^n >= p, p_z the probability of the suffix given the prefix (Hayes et al. 2025)
extraction strength    1 - (shortest prefix from which greedy decoding yields the rest) / length (Carlini et al. 2021)
counterfactual         loss under treatment minus loss under control, on the same text (Zhang et al. 2023)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def discoverable(log_probability: ArrayLike, n: int) -> np.ndarray:
    """Probability that at least one of n samples is the suffix, given its log-probability [nats]."""
    log_p = np.asarray(log_probability, float)
    if n < 1:
        raise ValueError(f"n counts samples, at least 1, got {n}")
    if log_p.size and log_p.max() > 1e-9:
        raise ValueError(f"log-probabilities are at most 0, got {log_p.max()}")
    with np.errstate(divide="ignore"):
        missed = np.log1p(-np.exp(np.minimum(log_p, 0.0)))  # of one sample
    return -np.expm1(n * missed)


def extraction_strength(greedy_right: ArrayLike) -> float:
    """greedy_right: (length,) bool, whether each token is what greedy decoding says after all true tokens before it.

    Up to the first error teacher forcing is greedy decoding, so the run of right tokens at the end tells how short a
    prefix suffices. The first token is never predicted, so a text of one token has strength 0.
    """
    right = np.asarray(greedy_right, bool)
    if not len(right):
        return math.nan
    right = right.copy()
    right[0] = False
    wrong = np.flatnonzero(~right)
    return 1.0 - (int(wrong[-1]) + 1) / len(right)
