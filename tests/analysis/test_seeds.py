"""From runs to runs: the t interval over seeds and the two-level bootstrap."""

import numpy as np
import pytest

from pretrain_exp.analysis.seeds import over_seeds, two_level_bootstrap

EFFECT = 0.1


def studies(seeds: int, sd: float = 0.03, items: int = 100, n: int = 2000, effect: float = EFFECT) -> np.ndarray:
    """(n, seeds, items) of differences -1, 0, 1 whose mean varies between seeds with this standard deviation."""
    rng = np.random.default_rng(5)
    mean = effect + sd * rng.standard_normal((n, seeds, 1))
    u = rng.random((n, seeds, items))
    return (u < 0.2 + mean / 2).astype(float) - (u > 0.8 + mean / 2)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_t_over_seeds_covers(seeds: int) -> None:
    interval = over_seeds(studies(seeds).mean(2))
    covered = (interval.low <= EFFECT) & (interval.high >= EFFECT)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.90), (3, 0.92)])
def test_bootstrap_is_too_narrow_for_few_seeds(seeds: int, most: float) -> None:
    """Where runs differ by more than their items explain: the reason why its rows are called descriptive."""
    draws = [two_level_bootstrap(study, 300, seed=i) for i, study in enumerate(studies(seeds, items=1000, n=1000))]
    covered = [b.low <= EFFECT <= b.high for b in draws]
    assert np.mean(covered) < most


def test_bootstrap_is_drawn_again_from_its_seed() -> None:
    differences = studies(3, n=1)[0]
    assert two_level_bootstrap(differences, 500, seed=3) == two_level_bootstrap(differences, 500, seed=3)
    assert two_level_bootstrap(differences, 500, seed=3) != two_level_bootstrap(differences, 500, seed=4)


def test_bootstrap_by_counts_and_by_draws_agree() -> None:
    coarse = [np.repeat([-1.0, 0.0, 1.0], [10, 50, 40])] * 3
    fine = [d + np.linspace(-1e-6, 1e-6, 100) for d in coarse]  # 100 distinct values: drawn item by item
    a, b = (two_level_bootstrap(d, 20_000, seed=1) for d in (coarse, fine))
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.004)


def test_bootstrap_takes_seeds_of_unequal_size_as_equal_units() -> None:
    assert two_level_bootstrap([np.zeros(1000), np.ones(10)], 200).mean == 0.5


@pytest.mark.parametrize("differences", [[np.ones(20)] * 3, [np.zeros(5)]])
def test_no_variance_is_flagged(differences: list[np.ndarray]) -> None:
    bootstrap = two_level_bootstrap(differences, 200)
    assert bootstrap.degenerate
    assert np.isnan([bootstrap.low, bootstrap.high]).all()


def test_an_empty_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[3, 0\]"):
        two_level_bootstrap([np.ones(3), np.ones(0)])
