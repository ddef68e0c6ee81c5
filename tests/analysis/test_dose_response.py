"""The logit fit against statsmodels, r50 and trend by their definitions and their coverage."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm
from tiny import design, items, results, study

from pretrain_exp.analysis.dose_response import LogitFit, cochran_armitage, fit_logit, r50
from pretrain_exp.analysis.responses import responses

DOSES = np.repeat([0, 1, 4, 16, 64], 60)


def answers(slope: float, intercept: float = -1.0, seed: int = 0, dose: np.ndarray = DOSES) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random(len(dose)) < 1 / (1 + np.exp(-intercept - slope * np.log1p(dose)))).astype(float)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("slope", [0.0, 0.4, 0.9])
def test_fit_is_that_of_statsmodels(slope: float, seeds: int) -> None:
    dose = np.concatenate([np.random.default_rng(s).permutation(DOSES) for s in range(seeds)])
    item = np.tile(np.arange(len(DOSES)), seeds)
    right = answers(slope, dose=dose)
    fit = fit_logit(right, dose, item)
    model = sm.Logit(right, sm.add_constant(np.log1p(dose)))
    expected = model.fit(disp=0, method="newton", tol=1e-12, cov_type="cluster", cov_kwds={"groups": item})
    assert (fit.intercept, fit.slope) == pytest.approx(tuple(expected.params), abs=1e-6)
    assert fit.covariance == pytest.approx(np.asarray(expected.cov_params()), rel=1e-4)
    assert (fit.n, fit.clusters) == (len(dose), len(DOSES))
    assert fit.predict(64) == pytest.approx(expected.predict([1.0, np.log(65)])[0], abs=1e-6)


def test_items_in_several_seeds_count_once() -> None:
    right = answers(0.5)
    once = fit_logit(right, DOSES, np.arange(len(DOSES)))
    thrice = fit_logit(np.tile(right, 3), np.tile(DOSES, 3), np.tile(np.arange(len(DOSES)), 3))
    assert thrice.slope == pytest.approx(once.slope)
    assert thrice.slope_se == pytest.approx(once.slope_se, rel=0.01)


def test_slope_interval_covers() -> None:
    fits = [fit_logit(answers(0.5, seed=s), DOSES, np.arange(len(DOSES))) for s in range(1000)]
    covered = [abs(fit.slope - 0.5) < 1.96 * fit.slope_se for fit in fits]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(
    ("right", "dose", "flag"),
    [
        ([0, 1, 0, 1], [4, 4, 4, 4], "only one dose"),
        ([1, 1, 1, 1], [0, 0, 4, 4], "every answer is the same"),
        ([0, 0, 1, 1], [0, 0, 4, 4], "the doses separate right from wrong"),
        ([0, 1, 1, 1], [0, 0, 4, 4], "the doses separate right from wrong"),
    ],
)
def test_no_fit_is_flagged(right: list[int], dose: list[int], flag: str) -> None:
    fit = fit_logit(right, dose, np.arange(4))
    assert fit.flag == flag
    assert np.isnan(fit.slope)
    assert r50(fit).flag == flag


def test_r50_is_where_the_curve_crosses_one_half() -> None:
    fit = fit_logit(answers(0.6), DOSES, np.arange(len(DOSES)))
    half = r50(fit)
    assert fit.predict(half.estimate) == pytest.approx(0.5)
    assert half.low < half.estimate < half.high


def test_r50_interval_covers() -> None:
    truth = np.expm1(1 / 0.6)
    found = [r50(fit_logit(answers(0.6, seed=s), DOSES, np.arange(len(DOSES)))) for s in range(1000)]
    assert np.mean([half.low <= truth <= half.high for half in found]) == pytest.approx(0.95, abs=0.025)


def test_r50_without_a_slope_is_not_determined() -> None:
    half = r50(LogitFit(-1.0, 0.1, np.diag([0.01, 0.01]), 100, 100))
    assert np.isnan([half.estimate, half.low, half.high]).all()
    assert "holds 0" in half.flag


def test_r50_above_one_half_at_dose_zero_says_so() -> None:
    half = r50(LogitFit(1.0, 0.8, np.diag([0.01, 0.001]), 100, 100))
    assert -1 < half.estimate < 0
    assert "already at dose 0" in half.flag


def test_no_bound_of_r50_lies_below_dose_0() -> None:
    half = r50(LogitFit(-0.1, 0.8, np.diag([0.04, 0.001]), 100, 100))
    assert half.low == 0 < half.estimate < half.high


FEW = [0, 1, 4, 16]  # doses of ten items each


@pytest.mark.parametrize(
    ("right", "flag"),
    [
        ([[1, 4, 8, 9], [1, 3, 7, 9], [2, 4, 8, 9]], ""),
        ([[5, 7, 9, 10], [0, 1, 2, 6]], "not determined: its interval spans more than six orders of magnitude"),
        ([[1, 4, 8, 9], [4, 5, 5, 4]], "1 of 2 seeds have none; not determined: the slope's interval holds 0"),
        ([[0, 2, 3, 4], [0, 1, 3, 4], [0, 2, 3, 4]], "outside the doses that were tried"),
    ],
)
def test_r50_over_seeds_is_a_row_that_says_why_it_has_no_number(right: list[list[int]], flag: str) -> None:
    scores = {("", "treated", seed): [float(i < k) for k in of for i in range(10)] for seed, of in enumerate(right)}
    data = study(results(scores), items({("", seed): np.repeat(FEW, 10).tolist() for seed in range(len(right))}))
    (fit,) = responses(design(data))
    (row,) = [row for row in fit.rows if (row.contrast, row.scope) == ("r50", "seeds")]
    assert (row.flag, row.seeds, row.n) == (flag, len(right), 40 * len(right))
    assert np.isnan(row.estimate) == np.isnan(row.low) == ("seeds have none" in flag or "magnitude" in flag)
    assert not row.low < 0


def test_trend_by_counts() -> None:
    """The textbook form: sum of scores times (right - expected) over doses."""
    right = answers(0.3)
    doses, score = np.unique(DOSES), np.log1p(np.unique(DOSES))
    n = np.array([(d == DOSES).sum() for d in doses])
    k = np.array([right[d == DOSES].sum() for d in doses])
    p = k.sum() / n.sum()
    statistic = (score * (k - n * p)).sum()
    variance = p * (1 - p) * ((score**2 * n).sum() - (score * n).sum() ** 2 / n.sum())
    trend = cochran_armitage(right, DOSES)
    assert trend.z == pytest.approx(statistic / np.sqrt(variance))
    assert trend.p == pytest.approx(2 * norm.sf(abs(trend.z)))


def test_trend_is_the_linear_by_linear_association_of_statsmodels() -> None:
    right = answers(0.3)
    counts = [[((right == y) & (d == DOSES)).sum() for d in np.unique(DOSES)] for y in (0, 1)]
    expected = sm.stats.Table(counts).test_ordinal_association(col_scores=np.log1p(np.unique(DOSES)))
    n = len(right)
    assert cochran_armitage(right, DOSES).z == pytest.approx(expected.zscore * np.sqrt(n / (n - 1)))


def test_trend_rejects_at_its_rate_under_the_null() -> None:
    p = [cochran_armitage(answers(0.0, seed=s), DOSES).p for s in range(2000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.015)


def test_no_trend_without_variance() -> None:
    trend = cochran_armitage([1, 1, 1], [0, 1, 4])
    assert np.isnan(trend.p)
    assert trend.flag
