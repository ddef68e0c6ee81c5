"""McNemar's exact and mid-p tests against vectors, SciPy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from pretrain_exp.analysis.paired import Pairs, count_pairs, mcnemar_exact, mcnemar_midp

EXACT = [(1, 0, 1.0), (5, 0, 0.0625), (8, 2, 0.109375), (15, 5, 0.041389), (60, 40, 0.056888), (10, 25, 0.016674)]


@pytest.mark.parametrize(("b", "c", "p"), EXACT)
def test_exact_vectors(b: int, c: int, p: float) -> None:
    assert mcnemar_exact(b, c) == pytest.approx(p, abs=5e-7)


def test_midp_vector() -> None:
    assert mcnemar_midp(15, 5) == pytest.approx(0.026604, abs=5e-7)


@given(st.integers(0, 300), st.integers(0, 300))
def test_exact_is_the_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(b, c) == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_midp_lies_below_exact_and_is_symmetric(b: int, c: int) -> None:
    assert 0 < mcnemar_midp(b, c) <= mcnemar_exact(b, c) <= 1
    assert mcnemar_midp(b, c) == mcnemar_midp(c, b)
    if b == c:
        assert mcnemar_midp(b, c) == pytest.approx(1.0)


def test_counts() -> None:
    treated, control = [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]
    assert count_pairs(treated, control) == Pairs(both=1, first=2, second=1, neither=3)
    assert count_pairs(treated, control).n == 7


def test_arrays_give_the_same_as_one_by_one() -> None:
    b, c = np.array([1, 5, 15]), np.array([0, 0, 5])
    assert mcnemar_exact(b, c).tolist() == [float(mcnemar_exact(*pair)) for pair in zip(b, c, strict=True)]
