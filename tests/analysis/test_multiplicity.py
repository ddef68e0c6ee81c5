"""Benjamini-Hochberg against SciPy, and what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from pretrain_exp.analysis.multiplicity import benjamini_hochberg


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_is_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))


def test_by_hand() -> None:
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_what_was_not_tested_does_not_count() -> None:
    adjusted = benjamini_hochberg([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])
    assert benjamini_hochberg([]).shape == (0,)


def test_false_discovery_rate_holds() -> None:
    """20 true nulls, 10 effects, 2,000 studies: at most q * 20 / 30 of the discoveries are false."""
    rng = np.random.default_rng(2)
    p = rng.random((2000, 30))
    p[:, 20:] **= 8
    found = np.array([benjamini_hochberg(row) <= 0.1 for row in p])
    rate = found[:, :20].sum(1) / np.maximum(found.sum(1), 1)
    assert rate.mean() == pytest.approx(0.1 * 20 / 30, abs=0.01)
