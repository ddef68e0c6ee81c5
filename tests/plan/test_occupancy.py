"""What placement rests on: stretches of valid starts, the greedy choice, the positions that are taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placed_edits import LONGER, RAMP
from plan_samples import PHASES, SPAN, S

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.audit import uniformity_tests
from pretrain_exp.plan.occupancy import Occupancy, greedy
from pretrain_exp.plan.stretches import stretches


@pytest.mark.parametrize(
    "span",
    [SPAN, (SPAN[0] + 5, SPAN[0] + 3 * S + 17), (SPAN[0] + 3, SPAN[0] + 20), (SPAN[0] + 1, SPAN[0] + 3 * S - 1)],
)
@pytest.mark.parametrize("phases", [PHASES, RAMP, LONGER])
@pytest.mark.parametrize("length", [1, 7, 17, S])
def test_stretches_count_every_valid_start_once(span: tuple[int, int], phases: Phases, length: int) -> None:
    first = phases.locate(np.arange(span[0], span[1] - length + 1))[0] if span[1] - span[0] >= length else np.array([])
    last = phases.locate(np.arange(span[0] + length - 1, span[1]))[0]
    valid = span[0] + np.flatnonzero(first == last[: len(first)])
    cut = stretches(span, phases)
    lengths = np.full(len(valid), length)
    assert cut.tokens == span[1] - span[0]
    assert cut.starts(np.array([length])).tolist() == [len(valid)]
    assert cut.position(np.arange(len(valid)), lengths).tolist() == valid.tolist()
    assert cut.index(valid, lengths).tolist() == list(range(len(valid)))


def test_uniformity_tests_agree_with_scipy_and_can_fail() -> None:
    from scipy import stats

    values = np.random.default_rng(0).random(500)
    tests = uniformity_tests(values)
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert tests["chi_square_p"] == pytest.approx(stats.chisquare(counts).pvalue)
    assert tests["ks"] == pytest.approx(stats.kstest(values, "uniform").statistic)
    assert tests["ks_p"] == pytest.approx(stats.kstest(values, "uniform", mode="asymp").pvalue, abs=0.01)
    assert uniformity_tests(values**2)["ks_p"] < 1e-4
    assert uniformity_tests(values**2)["chi_square_p"] < 1e-3


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(0, 10**6)), min_size=1, max_size=40))
def test_greedy_is_the_sequential_greedy(rows: list) -> None:
    rows = sorted({(start, length, priority * 64 + i) for i, (start, length, priority) in enumerate(rows)})
    start, length, priority = np.array(rows).T
    expected: list[int] = []
    for i in np.argsort(priority):
        if all(start[j] >= start[i] + length[i] or start[i] >= start[j] + length[j] for j in expected):
            expected.append(int(i))
    assert np.flatnonzero(greedy(start, start + length, priority)).tolist() == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 400), max_size=30), max_size=6), st.integers(1, 9))
def test_occupancy_knows_every_taken_position(batches: list, length: int) -> None:
    occupancy, taken = Occupancy(), np.zeros(500, dtype=bool)
    for batch in batches:
        start = np.unique(np.array(batch, dtype=np.int64) * 10 % 400)
        start = start[~taken[start]]
        occupancy.add(start, start + 7)
        for each in start:
            taken[each : each + 7] = True
        probe = np.arange(480)
        truth = [taken[p : p + length].any() for p in probe]
        assert occupancy.meets(probe, probe + length).tolist() == truth
    assert occupancy.tokens_in(3, 333) == taken[3:333].sum()
