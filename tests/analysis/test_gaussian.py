"""Tests of planted noise: the null as SciPy has it, calibrated, and a shift that is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pretrain_exp.analysis.gaussian import watermark_test


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_every_number_is_scipys(seed: int, shift: float) -> None:
    x = np.random.default_rng(seed).normal(shift, 1, 200)
    found = watermark_test(x, 0.05)
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(x.mean())
    assert found.z_p == pytest.approx(stats.norm.cdf(x.mean() * np.sqrt(200)))
    assert found.ks_p == pytest.approx(stats.kstest(x, stats.norm(0, 1).cdf).pvalue)
    expected = stats.binomtest(int((x < stats.norm.ppf(0.05)).sum()), 200)
    wilson = expected.proportion_ci(method="wilson")
    assert found.tpr == expected.k / 200
    assert (found.tpr_low, found.tpr_high) == pytest.approx((wilson.low, wilson.high))


def test_under_the_null_it_alarms_as_often_as_it_says() -> None:
    tests = [watermark_test(x) for x in np.random.default_rng(0).normal(size=(2000, 64))]
    for name in ("z_p", "ks_p"):
        share = np.mean([getattr(test, name) < 0.05 for test in tests])
        assert 0.035 < share < 0.065, name
    assert 0.008 < np.mean([test.tpr for test in tests]) < 0.012
    assert 0.93 < np.mean([test.low < 0 < test.high for test in tests]) < 0.97


def test_only_a_shift_to_below_is_a_trace() -> None:
    x = np.random.default_rng(0).normal(0.5, 1, 300)
    up, down = watermark_test(x), watermark_test(-x)
    assert down.z_p < 1e-6 < 0.99 < up.z_p
    assert down.tpr > 0.02 > up.tpr
    assert down.ks_p == pytest.approx(up.ks_p)


@pytest.mark.parametrize("values", [[-3.0], [-3.0, -3.0, -3.0]])
def test_without_variance_there_is_no_interval(values: list[float]) -> None:
    found = watermark_test(values)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert found.tpr == 1.0


@pytest.mark.parametrize(("values", "fpr"), [([], 0.01), ([0.0, np.nan], 0.01), ([0.0], 0.0), ([0.0], 1.0)])
def test_what_is_no_sample(values: list, fpr: float) -> None:
    with pytest.raises(ValueError):
        watermark_test(values, fpr)
