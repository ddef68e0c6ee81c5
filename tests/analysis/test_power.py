"""The power preview against the noncentral t and against studies simulated with the effect that it names.

Under a planted effect, 2,000 studies each: intervals cover it at their rate.
"""

import numpy as np
import pytest
from scipy.stats import nct, norm
from scipy.stats import t as student

from pretrain_exp.analysis.means import t_interval, welch
from pretrain_exp.analysis.power import mde_paired, mde_seeds, power_seeds
from pretrain_exp.analysis.proportions import newcombe, newcombe_paired, wilson
from pretrain_exp.analysis.seeds import over_seeds


def power_paired(effect: float, variance: float, n: int) -> float:
    shift, z = effect / np.sqrt(variance / n), norm.ppf(0.975)
    return float(norm.cdf(shift - z) + norm.cdf(-shift - z))


def test_mde_by_hand() -> None:
    assert mde_paired(0.25, 100) == pytest.approx((1.959964 + 0.841621) * 0.05, abs=1e-6)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_power_of_the_minimum_detectable_effect(power: float) -> None:
    assert power_paired(float(mde_paired(0.3, 250, power)), 0.3, 250) == pytest.approx(power, abs=1e-4)
    assert power_seeds(mde_seeds(0.03, 4, power), 0.03, 4) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0, 6.0])
def test_power_over_seeds_is_that_of_the_noncentral_t(seeds: int, shift: float) -> None:
    critical = student.ppf(0.975, seeds - 1)
    expected = nct.sf(critical, seeds - 1, shift) + nct.cdf(-critical, seeds - 1, shift)
    assert power_seeds(shift / np.sqrt(seeds), 1.0, seeds) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [100, 400])
def test_planted_effect_is_seen_as_often_as_promised_within_a_run(n: int) -> None:
    rng = np.random.default_rng(3)
    effect = float(mde_paired(0.36, n))
    u = rng.random((2000, n))
    d = (u < 0.18 + effect / 2).astype(float) - (u > 0.82 + effect / 2)  # variance 0.36 - effect^2
    seen = t_interval(d).p < 0.05
    assert seen.mean() == pytest.approx(power_paired(effect, 0.36 - effect**2, n), abs=0.03)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_planted_effect_is_seen_as_often_as_promised_over_seeds(seeds: int) -> None:
    rng = np.random.default_rng(4)
    effects = mde_seeds(0.03, seeds) + 0.03 * rng.standard_normal((2000, seeds))
    assert (t_interval(effects).p < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_one_seed_has_no_power_over_seeds() -> None:
    assert np.isnan(mde_seeds(0.03, 1))
    assert np.isnan(power_seeds(0.1, 0.03, 1))
    assert np.isnan(mde_seeds(0.0, 3))


STUDIES, ERROR = 2000, 0.0146  # three standard errors of a rate of 5 % in 2,000 studies


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_over_seeds_of_right_and_wrong_answers_as_well(seeds: int) -> None:
    """Runs that differ, and items drawn anew in each: the spread between seeds is what both make of it."""
    rng, items, between = np.random.default_rng(50 + seeds), 300, 0.03
    p = 0.4
    sd = np.sqrt(between**2 + 2 * p * (1 - p) / items)
    effect = mde_seeds(sd, seeds)
    shift = effect + between * rng.standard_normal((STUDIES, seeds))
    treated = rng.binomial(items, np.clip(p + shift / 2, 0, 1)) / items
    control = rng.binomial(items, np.clip(p - shift / 2, 0, 1)) / items
    seen = (t_interval(treated - control).p < 0.05).mean()
    assert seen == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.3])
def test_intervals_of_paired_answers_cover_what_was_planted(effect: float) -> None:
    rng, n = np.random.default_rng(60), 120
    difficulty = rng.beta(2, 3, (STUDIES, n)) * (1 - effect)  # room above for the effect
    noise = rng.random((2, STUDIES, n))
    x, y = noise[0] < difficulty + effect, noise[1] < difficulty
    both, first, second = (x & y).sum(1), (x & ~y).sum(1), (~x & y).sum(1)
    low, high = newcombe_paired(both, first, second, n - both - first - second)
    assert ((low <= effect) & (effect <= high)).mean() >= 0.95 - ERROR
    within = t_interval(x.astype(float) - y)
    assert ((within.low <= effect) & (effect <= within.high)).mean() == pytest.approx(0.95, abs=ERROR)


def test_intervals_against_the_holdout_cover_what_was_planted() -> None:
    rng, effect = np.random.default_rng(61), 0.2
    read, held = (rng.binomial(80, p, STUDIES) for p in (0.3 + effect, 0.3))
    low, high = newcombe(read, 80, held, 80)
    assert ((low <= effect) & (effect <= high)).mean() == pytest.approx(0.95, abs=ERROR)
    low, high = wilson(held, 80)
    covered = np.abs((low + high) / 2 - 0.3) <= (high - low) / 2
    assert covered.mean() == pytest.approx(0.95, abs=2 * ERROR)  # counts are few: it jumps
    loss = welch(rng.standard_normal((STUDIES, 50)) - effect, 2 * rng.standard_normal((STUDIES, 70)))
    assert ((loss.low <= -effect) & (-effect <= loss.high)).mean() == pytest.approx(0.95, abs=ERROR)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_seeds_cover_what_was_planted(seeds: int) -> None:
    rng, effect = np.random.default_rng(70 + seeds), 0.15
    found = effect + 0.03 * rng.standard_normal((STUDIES, seeds)) + rng.standard_normal((STUDIES, seeds, 200)).mean(2)
    interval = over_seeds(found)
    assert ((interval.low <= effect) & (effect <= interval.high)).mean() == pytest.approx(0.95, abs=ERROR)


def test_an_interval_excludes_the_null_as_often_as_its_test_rejects() -> None:
    rng = np.random.default_rng(80)
    interval = t_interval(0.2 + rng.standard_normal((STUDIES, 60)))
    assert np.array_equal((interval.low > 0) | (interval.high < 0), interval.p < 0.05)
