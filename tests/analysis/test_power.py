"""The power preview against the noncentral t and against studies simulated with the effect that it names."""

import numpy as np
import pytest
from scipy.stats import nct
from scipy.stats import t as student

from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.power import mde_paired, mde_seeds, power_paired, power_seeds


def test_mde_by_hand() -> None:
    assert mde_paired(0.25, 100) == pytest.approx((1.959964 + 0.841621) * 0.05, abs=1e-6)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_power_of_the_minimum_detectable_effect(power: float) -> None:
    assert power_paired(mde_paired(0.3, 250, power), 0.3, 250) == pytest.approx(power, abs=1e-4)
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
