"""Score intervals against published vectors, statsmodels and their own coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from pretrain_exp.analysis.proportions import newcombe, newcombe_paired, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775)]
)
def test_wilson_vectors(k: int, n: int, low: float, high: float) -> None:
    assert np.round(wilson(k, n), 4) == pytest.approx([low, high])


def test_newcombe_vector() -> None:
    assert np.round(newcombe(56, 70, 48, 80), 4) == pytest.approx([0.0524, 0.3339])


@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_is_that_of_statsmodels(counts: tuple[int, int], level: float) -> None:
    k, n = counts
    assert wilson(k, n, level) == pytest.approx(proportion_confint(k, n, 1 - level, "wilson"), abs=1e-12)


@given(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
)
def test_newcombe_is_that_of_statsmodels(first: tuple[int, int], second: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert newcombe(*first, *second) == pytest.approx(expected, abs=1e-12)


def test_broadcasts_and_leaves_nothing_where_there_is_nothing() -> None:
    low, high = wilson([0, 8, 0], [10, 10, 0])
    assert low.shape == (3,)
    assert high[1] == pytest.approx(0.9433, abs=1e-4)
    assert np.isnan(low[2])
    assert np.isnan(high[2])


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(lambda counts: sum(counts) > 0))
def test_paired_interval_holds_the_estimate_has_a_width_and_turns_round(counts: list[int]) -> None:
    both, first, second, neither = counts
    low, high = newcombe_paired(both, first, second, neither)
    estimate = (first - second) / sum(counts)
    assert -1 - 1e-9 <= low <= estimate + 1e-12
    assert estimate - 1e-12 <= high <= 1 + 1e-9
    assert high - low > 1e-3
    assert newcombe_paired(both, second, first, neither) == pytest.approx((-high, -low))


def test_paired_interval_without_correlation_is_the_independent_one() -> None:
    # a b / c d with ad = bc: the arms are independent, phi is 0
    assert newcombe_paired(24, 36, 16, 24) == pytest.approx(newcombe(60, 100, 40, 100))


@pytest.mark.parametrize(("p", "change"), [(0.3, 0.0), (0.3, 0.4), (0.8, 0.1), (0.05, 0.0)])
def test_paired_interval_covers(p: float, change: float) -> None:
    """100 items of unequal difficulty; 4,000 studies; at least 95 % less binomial error, not above 99 %."""
    rng = np.random.default_rng(1)
    difficulty = np.clip(p + 0.25 * min(p, 1 - p) * rng.standard_normal((4000, 100)), 0.001, 0.999)
    gain = np.minimum(change, 1 - difficulty)
    x = rng.random((4000, 100)) < difficulty + gain
    y = rng.random((4000, 100)) < difficulty
    counts = [(a & b).sum(1) for a, b in ((x, y), (x, ~y), (~x, y), (~x, ~y))]
    low, high = newcombe_paired(*counts)
    covered = np.mean((low <= gain.mean()) & (gain.mean() <= high))
    assert 0.938 < covered < 0.99
