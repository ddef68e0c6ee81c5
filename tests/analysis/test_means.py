"""Means and their intervals against SciPy; a sample without variance is flagged, never given a zero width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pretrain_exp.analysis.means import ratio_interval, t_interval, welch

SAMPLES = st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda x: len(set(x)) > 1)


@given(SAMPLES)
def test_t_interval_is_scipys(sample: list[int]) -> None:
    expected = stats.ttest_1samp(sample, 0)
    interval = t_interval(sample)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9, abs=1e-9)
    assert interval.p == pytest.approx(expected.pvalue, rel=1e-9)


@given(SAMPLES, SAMPLES)
def test_welch_is_scipys(x: list[int], y: list[int]) -> None:
    expected = stats.ttest_ind(x, y, equal_var=False)
    interval = welch(x, y)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9, abs=1e-9)
    assert interval.p == pytest.approx(expected.pvalue, rel=1e-9)


def test_three_seeds_by_hand() -> None:
    interval = t_interval([0.5, 0.6, 0.7])  # mean 0.6, sd 0.1, t(2) = 4.302653
    assert (interval.low, interval.high) == pytest.approx((0.6 - 0.248414, 0.6 + 0.248414), abs=1e-6)


@pytest.mark.parametrize("values", [[0.61], [0.61, 0.61, 0.61], [1.0] * 40, [0.1 + 0.2, 0.3]])
def test_no_variance_is_flagged(values: list[float]) -> None:
    interval = t_interval(values)
    assert bool(interval.degenerate)
    assert np.isnan([interval.low, interval.high, interval.p]).all()
    assert interval.mean == pytest.approx(np.mean(values))


def test_welch_without_variance_is_flagged() -> None:
    interval = welch([1, 1, 1], [0, 0])
    assert bool(interval.degenerate)
    assert np.isnan(interval.low)
    assert interval.mean == 1


def test_last_axis_is_the_sample() -> None:
    values = np.arange(12.0).reshape(3, 4) ** 2
    assert t_interval(values).mean.tolist() == values.mean(1).tolist()
    assert t_interval(values).low[1] == pytest.approx(float(t_interval(values[1]).low))


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_welch_needs_two_values(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="two values or more"):
        welch(x, y)


def test_ratio_with_equal_weights_is_the_t_interval() -> None:
    d = np.array([0.1, 0.4, -0.2, 0.3])
    ratio, mean = ratio_interval(d * 7, np.full(4, 7.0)), t_interval(d)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((mean.mean, mean.low, mean.high))


def test_ratio_weighs_long_texts_more_and_covers() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 400, (2000, 80)).astype(float)
    nll = tokens * 0.05 + rng.standard_normal((2000, 80)) * np.sqrt(tokens)
    covered = [
        float(interval.low) <= 0.05 <= float(interval.high)
        for interval in (ratio_interval(n, t) for n, t in zip(nll, tokens, strict=True))
    ]
    assert 0.93 < np.mean(covered) < 0.965
    assert ratio_interval([10.0, 0.0], [100.0, 1.0]).mean == pytest.approx(10 / 101)
