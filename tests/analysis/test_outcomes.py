"""Forgetting, membership, memorization, codes of learning, dependence: vectors, references, null studies."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from pretrain_exp.analysis.dependence import ALL, dependence, noise_of_controls
from pretrain_exp.analysis.exposures import Clock
from pretrain_exp.analysis.forgetting import exponential, logarithmic
from pretrain_exp.analysis.learned import FORGOTTEN, NEVER, UNSTABLE, describe, learned_at, recurrence
from pretrain_exp.analysis.membership import auc, exposure, min_k, rank_among, separation, tpr_at_fpr
from pretrain_exp.analysis.memorization import discoverable, extraction_strength
from pretrain_exp.analysis.scores import Unit
from pretrain_exp.analysis.study import CURVES, RESULTS, StudyData


def rates(total: int) -> np.ndarray:
    """700 warm-up steps to 6e-4, then a cosine to 6e-5."""
    step = np.arange(total)
    cosine = 6e-5 + (6e-4 - 6e-5) * 0.5 * (1 + np.cos(np.pi * (step - 700) / (total - 700)))
    return np.where(step < 700, 6e-4 * step / 700, cosine)


@pytest.mark.parametrize(
    ("total", "since", "left"),
    [(4730, 0, 0.857280), (4730, 2365, 0.956276), (70500, 0, 0.097837), (70500, 35250, 0.569238)],
)
def test_what_weight_decay_leaves(total: int, since: int, left: float) -> None:
    columns = {"member": "", "arm": "treated", "seed": 0, "metric": "train/lr"}
    table = pa.table(
        {name: np.full(total, value) for name, value in columns.items()}
        | {"step": np.arange(total), "value": rates(total)}
    )
    study = StudyData("t", "q", RESULTS.empty_table(), curves=table.select(CURVES.names), weight_decay={"": 0.1})
    clock = Clock.of(study, Unit("", 0))
    assert clock.left is not None
    assert clock.left(np.array([float(since)]), total)[0] == pytest.approx(left, abs=5e-7)


def test_an_exponential_is_found_again() -> None:
    x = np.linspace(1e8, 5e9, 20)
    fit = exponential(x, 0.3 * np.exp(-x / 1e9) + 1e-4 * np.sin(np.arange(20)))
    assert fit.parameters == pytest.approx((0.3, 1e9), rel=0.02)
    assert fit.half_life == pytest.approx(1e9 * math.log(2), rel=0.02)
    assert 0 < fit.errors[1] < 5e7


def test_a_logarithm_is_found_again() -> None:
    x = np.array([1.0, 10, 100, 1000])
    fit = logarithmic(x, 0.6 - 0.2 * np.log10(x))
    assert fit.parameters == pytest.approx((0.6, -0.2))
    assert fit.zero == pytest.approx(1000.0)
    assert fit.half_life == pytest.approx(10**1.5)


def test_what_does_not_fade_has_no_half_life() -> None:
    x = np.array([1.0, 2, 3, 4])
    assert math.isnan(exponential(x, [1.0, 1.1, 1.2, 1.3]).half_life)
    assert math.isnan(logarithmic(x, [1.0, 1.1, 1.2, 1.3]).zero)
    with pytest.raises(ValueError, match="at least 3"):
        exponential([1, 2], [1, 2])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_auc_and_tpr_are_scikit_learns(members: list[int], others: list[int]) -> None:
    label, score = [1] * len(members) + [0] * len(others), members + others
    assert auc(members, others) == pytest.approx(roc_auc_score(label, score))
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    for allowed in (0.0, 0.1, 0.5):
        assert tpr_at_fpr(members, others, allowed) == pytest.approx(tpr[fpr <= allowed + 1e-9].max())


def test_separation_has_an_interval_or_says_that_it_has_none() -> None:
    rng = np.random.default_rng(0)
    found = separation(rng.normal(1, 1, 300), rng.normal(0, 1, 300), resamples=300)
    assert found.low < found.auc < found.high
    assert found.auc == pytest.approx(0.76, abs=0.05)  # Phi(1 / sqrt 2)
    assert found.tpr[0.01][1] <= found.tpr[0.01][0] <= found.tpr[0.01][2]
    flat = separation(np.zeros(20), np.zeros(20), resamples=20)
    assert flat.degenerate
    assert flat.auc == 0.5
    assert math.isnan(flat.low)
    assert math.isnan(separation([], [1.0]).auc)


def test_under_the_null_a_tpr_is_its_fpr() -> None:
    rng = np.random.default_rng(1)
    found = [tpr_at_fpr(rng.normal(size=200), rng.normal(size=500), 0.01) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.01, abs=0.002)


def test_exposure() -> None:
    assert exposure(1, 2**20) == 20
    ranks = np.arange(1, 2**16 + 1)
    assert exposure(ranks, 2**16).mean() == pytest.approx(1.4427, abs=1e-3)
    assert rank_among(3.0, [1.0, 2.0, 3.0]) == 2
    with pytest.raises(ValueError, match="1 to 8"):
        exposure([0], 8)


def test_min_k_of_short_texts_is_a_number() -> None:
    assert min_k([-1.0], 0.2) == -1.0
    assert min_k([-1.0, -2.0, -3.0, -4.0, -5.0], 0.4) == -4.5
    assert math.isnan(min_k([], 0.2))


@pytest.mark.parametrize(("p_z", "n"), [(0.5, 1), (0.01, 100), (1e-12, 10), (0.999999, 3), (1.0, 1)])
def test_discoverable(p_z: float, n: int) -> None:
    found = float(discoverable(math.log(p_z), n))
    assert found == pytest.approx(-math.expm1(n * math.log1p(-p_z)) if p_z < 1 else 1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("right", "strength"),
    [([0, 1, 1, 1], 0.75), ([0, 0, 0, 0], 0.0), ([0, 1, 0, 1], 0.25), ([1, 1, 1, 1], 0.75), ([1], 0.0)],
)
def test_extraction_strength(right: list[int], strength: float) -> None:
    assert extraction_strength(right) == strength


def test_codes_of_learning() -> None:
    steps = [500, 1000, 1500, 2000]
    rows = [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, np.nan, 1]]
    codes = learned_at(rows, steps).tolist()
    assert codes == [1500, 500, UNSTABLE, NEVER, FORGOTTEN - 1500, UNSTABLE]
    assert [describe(code) for code in codes[:5]] == [
        "learned at 1500", "learned at 500", "unstable", "never", "forgotten at 1500",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="do not fit"):
        learned_at(rows, [500, 1000])


def test_picked_items_regress_to_the_mean() -> None:
    """Items that differ by luck alone: picked in one run, another run has them right no more often than the rest."""
    rng = np.random.default_rng(0)
    steps = [1, 2, 3]
    lucky = [rng.random((4000, 3)) < 0.5 for _ in range(3)]
    for row in recurrence(lucky, steps):
        assert row.accuracy == pytest.approx(dict.fromkeys(steps, 0.5), abs=0.05)
        assert row.again == pytest.approx(1 / 8, abs=0.03)  # any of eight patterns is as likely
    sure = [np.tile([0, 1, 1], (10, 1))] * 2
    assert recurrence(sure, steps)[1].again == 1.0
    assert math.isnan(recurrence(sure, steps)[2].again)


def test_dependence_finds_what_depends_and_nothing_else() -> None:
    """200 matrices of three experiments with the null off the diagonal: few false findings; planted ones are found."""
    rng = np.random.default_rng(0)
    names, wrong, found = ("a", "b", "c"), 0, 0
    for _ in range(200):
        cells = dependence(
            {(i, j): [rng.normal(2.0 * (i == j), 1, 50) for _ in range(3)] for i in (*names, ALL) for j in names}
        )
        off = [cell for cell in cells if not cell.diagonal and cell.treatment != ALL]
        assert len(off) == 6
        wrong += any(cell.p_adjusted < 0.05 for cell in off)
        found += all(cell.low > 0 for cell in cells if cell.diagonal)
        assert all(math.isnan(cell.p_adjusted) for cell in cells if cell.diagonal or cell.treatment == ALL)
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert found / 200 > 0.9


def test_one_seed_is_flagged_and_controls_show_their_noise() -> None:
    (cell,) = dependence({("a", "a"): [[1.0, 2.0, 3.0]]})
    assert cell.flag.startswith("one seed")
    assert cell.d == pytest.approx(2 / (1 / math.sqrt(3)))
    noise = noise_of_controls({"a": [[1.0, 1.0], [2.0, 2.0]], "b": [[1.0]]})
    assert noise["a"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(noise["b"])
    with pytest.raises(ValueError, match="no scores"):
        dependence({("a", "b"): []})
