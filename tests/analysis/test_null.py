"""2,000 simulated studies without an effect: exact tests reject at most at their rate, the others at it.

Items differ in difficulty; where it says so, runs differ too (standard deviation of 3 points between seeds).
"""

import numpy as np
import pytest

from pretrain_exp.analysis.means import t_interval, welch
from pretrain_exp.analysis.paired import mcnemar_exact, mcnemar_midp
from pretrain_exp.analysis.proportions import newcombe
from pretrain_exp.analysis.seeds import over_seeds

STUDIES, ERROR = 2000, 0.0146  # three standard errors of a rate of 5 % in 2,000 studies


Answers = tuple[np.ndarray, np.ndarray]


def runs(rng: np.random.Generator, shape: tuple[int, ...], items: int, between: float) -> Answers:
    """Right or wrong in treated and control, (*shape, items) each; every run has a shift of its own."""
    difficulty = rng.beta(2, 3, (shape[0], *(1 for _ in shape[1:]), items))
    shifts = between / np.sqrt(2) * rng.standard_normal((2, *shape, 1))
    return tuple(rng.random((*shape, items)) < difficulty + shift for shift in shifts)  # type: ignore[return-value]


@pytest.mark.parametrize("items", [25, 100, 400])
def test_mcnemar_within_a_run(items: int) -> None:
    x, y = runs(np.random.default_rng(items), (STUDIES,), items, 0.0)
    b, c = (x & ~y).sum(1), (~x & y).sum(1)
    exact, mid = (mcnemar_exact(b, c) < 0.05).mean(), (mcnemar_midp(b, c) < 0.05).mean()
    assert exact <= 0.05
    assert exact <= mid <= 0.05 + ERROR


def test_paired_t_within_a_run() -> None:
    rng = np.random.default_rng(1)
    d = rng.standard_normal((STUDIES, 80)) * rng.gamma(2, 1, (1, 80))
    assert (t_interval(d).p < 0.05).mean() == pytest.approx(0.05, abs=ERROR)


def test_holdout_comparison_within_a_run() -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.random((STUDIES, 100)) < rng.beta(2, 3, (STUDIES, 100)) for _ in range(2))
    low, high = newcombe(x.sum(1), 100, y.sum(1), 100)
    assert ((low > 0) | (high < 0)).mean() == pytest.approx(0.05, abs=ERROR)
    loss = rng.standard_normal((STUDIES, 60)), 3 * rng.standard_normal((STUDIES, 40))
    assert (welch(*loss).p < 0.05).mean() == pytest.approx(0.05, abs=ERROR)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_t_over_seeds_when_runs_differ(seeds: int) -> None:
    x, y = runs(np.random.default_rng(seeds), (STUDIES, seeds), 400, 0.03)
    rate = (over_seeds(x.mean(2) - y.mean(2)).p < 0.05).mean()
    assert rate <= 0.05 + ERROR
    if (
        seeds > 2
    ):  # two effects that are multiples of 1 / 400 are sometimes equal: flagged, and then nothing is rejected
        assert rate >= 0.05 - ERROR


def test_pooled_mcnemar_rejects_too_often_when_runs_differ() -> None:
    """The reason why pooled rows are called descriptive: runs are not items."""
    x, y = runs(np.random.default_rng(9), (STUDIES, 3), 400, 0.03)
    b, c = (x & ~y).sum((1, 2)), (~x & y).sum((1, 2))
    assert (mcnemar_exact(b, c) < 0.05).mean() > 0.10
