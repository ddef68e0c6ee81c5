"""Rank agreement against SciPy, decision accuracy by hand, and which variants and conditions are compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from pretrain_exp.analysis.agreement import ALL_EQUAL, FEW, agreements, decisions, spearman
from pretrain_exp.analysis.estimate import Estimate

NAN = math.nan
EFFECTS = {
    "same order": ([1, 2, 3, 4], [10, 20, 30, 31]),
    "reverse": ([1, 2, 3], [3, 2, 1]),
    "ties in one": ([1, 1, 2, 3], [4, 1, 2, 2.5]),
    "ties in both": ([0, 0, 1, 1, 5], [2, 2, 1, 3, 3]),
    "many": (np.random.default_rng(0).normal(size=60), np.random.default_rng(1).normal(size=60)),
    "many, rounded": (np.random.default_rng(2).integers(5, size=60), np.random.default_rng(3).integers(5, size=60)),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_spearman_is_that_of_scipy(name: str) -> None:
    first, second = EFFECTS[name]
    assert spearman(first, second) == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])]
)
def test_too_few_or_all_equal_has_no_rank_correlation(first: list[float], second: list[float]) -> None:
    assert math.isnan(spearman(first, second))


def test_what_differs_by_rounding_is_a_tie() -> None:
    assert spearman([0.3, 0.1 + 0.2, 5], [1, 2, 3]) == pytest.approx(float(spearmanr([1, 1, 2], [1, 2, 3]).statistic))
    assert decisions([0.3, 0.1 + 0.2], [0.3, 0.3]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], (3, 3, 0)),
        ([1, 2, 3], [3, 2, 1], (0, 3, 0)),
        ([1, 2, 3], [1, 3, 2], (2, 3, 0)),
        ([1, 1, 3], [1, 2, 3], (2, 3, 0)),  # equal in the small scale alone: not the same
        ([1, 2, 3], [1, 1, 3], (2, 3, 0)),
        ([1, 1, 3], [2, 2, 3], (2, 2, 1)),  # equal in both: decides nothing
        ([0, 0, 0], [0, 0, 0], (0, 0, 3)),
        ([1], [1], (0, 0, 0)),
    ],
)
def test_decisions_by_hand(first: list[float], second: list[float], expected: tuple[int, int, int]) -> None:
    assert decisions(first, second) == expected


def row(panel: str, dose: int | None, effect: float, seed: int | None = 0, **given: Any) -> Estimate:
    scope = "seeds" if seed is None else "run"
    fields = {"contrast": "treated_vs_control", "evaluation": "e", "task": "t", "metric": "acc", "insertion": "i"}
    return Estimate(**{**fields, "panel": panel, "dose": dose, "scope": scope, "seed": seed, "n": 9, "estimate": effect,
                       **given})  # fmt: skip


def variant(panel: str, *effects: float, **given: Any) -> list[Estimate]:
    """Of doses 1, 2, ..."""
    return [row(panel, dose, effect, **given) for dose, effect in enumerate(effects, start=1)]


A, B, C = "model=a", "model=b", "model=c"
CASES: dict[str, tuple[list[Estimate], list[tuple[Any, ...]]]] = {
    "one variant": (variant("", 1, 2, 3), []),
    "not the model": (variant("lr=1", 1, 2, 3) + variant("lr=2", 1, 2, 3), []),
    "two": (variant(A, 1, 2, 3) + variant(B, 1, 3, 2), [(A, B, None, 3, 0.5, 3, 2, "")]),
    "every two": (
        variant(A, 1, 2, 3) + variant(B, 1, 3, 2) + variant(C, 3, 2, 1),
        [(A, B, None, 3, 0.5, 3, 2, ""), (A, C, None, 3, -1.0, 3, 0, ""), (B, C, None, 3, -0.5, 3, 1, "")],
    ),
    "only the rest alike": (
        variant(f"lr=1, {A}", 1, 2, 3) + variant(f"lr=1, {B}", 1, 2, 3) + variant(f"lr=2, {B}", 3, 2, 1),
        [(f"lr=1, {A}", f"lr=1, {B}", None, 3, 1.0, 3, 3, "")],
    ),
    "two conditions": (variant(A, 1, 2) + variant(B, 1, 2), [(A, B, None, 2, NAN, 0, 0, FEW)]),
    "none in common": (variant(A, 1, 2, 3, task="u") + variant(B, 1, 2, 3), [(A, B, None, 0, NAN, 0, 0, FEW)]),
    "what has no effect": (variant(A, 1, 2, 3, NAN) + variant(B, 1, 2, 3, 4), [(A, B, None, 3, 1.0, 3, 3, "")]),
    "one never moves": (variant(A, 0, 0, 0) + variant(B, 1, 2, 3), [(A, B, None, 3, NAN, 3, 0, ALL_EQUAL)]),
    "neither moves": (variant(A, 0, 0, 0) + variant(B, 0, 0, 0), [(A, B, None, 3, NAN, 0, 0, ALL_EQUAL)]),
    "tasks are conditions": (
        variant(A, 1, 2) + variant(A, 3, task="u") + variant(B, 1, 2) + variant(B, 0, task="u"),
        [(A, B, None, 3, -0.5, 3, 1, "")],
    ),
    "groups, other contrasts and what was not planted are none": (
        variant(A, 1, 2, 3) + variant(B, 1, 2, 3) + variant(A, 9, group="g") + variant(B, -9, group="g")
        + variant(A, 9, contrast="placebo_vs_control") + [row(A, None, 9, insertion=""), row(B, None, 9, insertion="")],
        [(A, B, None, 3, 1.0, 3, 3, "")],
    ),
    "seeds": (
        [*variant(A, 1, 2, 3), *variant(A, 3, 2, 1, seed=1), *variant(A, 1, 2, 4, seed=None)]
        + [*variant(B, 1, 2, 3), *variant(B, 1, 2, 3, seed=1), *variant(B, 1, 2, 3, seed=None)],
        [(A, B, None, 3, 1.0, 3, 3, ""), (A, B, 0, 3, 1.0, 3, 3, ""), (A, B, 1, 3, -1.0, 3, 0, "")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_which_variants_and_conditions_are_compared(name: str) -> None:
    rows, expected = CASES[name]
    found = [
        (a.first, a.second, a.seed, a.n, pytest.approx(a.spearman, nan_ok=True), a.pairs, a.same, a.flag)
        for a in agreements(rows)
    ]
    assert found == expected
    for each in agreements(rows):
        assert each.accuracy == pytest.approx(each.same / each.pairs if each.pairs else NAN, nan_ok=True)
