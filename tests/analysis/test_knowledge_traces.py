"""Traces made by formula: every number has a known answer."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from pretrain_exp.analysis.acquisition import fit_decay, peaks, retainability, without_outliers
from pretrain_exp.analysis.knowledge import knowledge_tables
from pretrain_exp.analysis.study import LEDGER, RESULTS

STEPS = np.arange(0, 1001)
BASE, GAIN, RATE = -20.0, 4.0, 0.25


def trace(injections, steps=STEPS, rise=7, base=BASE, gain=GAIN, rate=RATE):
    """Each injection is learned linearly over `rise` steps, then decays as 1 - rate * log10(steps since its peak)."""
    out = np.full(len(steps), base)
    for each in injections:
        since = steps - each
        out = out + gain * np.where(since < rise, np.clip(since / rise, 0, 1), 0.0)
        late = np.maximum(since - rise, 1)
        out = out + np.where(since >= rise, gain * (1 - rate * np.log10(late)), 0.0)
    return out


def test_peak_effectivity_and_decay_are_those_of_the_formula():
    found = peaks(STEPS, trace([100]), [100])
    assert (found.t_inj.tolist(), found.t_lam.tolist()) == ([100], [107])
    assert found.effectivity == pytest.approx([GAIN])
    since, share = retainability(STEPS, trace([100]), [100])
    assert since.tolist() == list(range(1, 894))
    assert share == pytest.approx(1 - RATE * np.log10(since))
    fit = fit_decay(since, share, np.zeros(len(since)))
    assert fit.constant == pytest.approx(RATE)
    assert fit.lost_at == pytest.approx(10 ** (1 / RATE))
    assert np.isinf(replace(fit, constant=1e-3).lost_at)  # beyond any number
    assert np.isnan(fit.se)
    assert "one fact" in fit.flag
    two = fit_decay([1, 10], [1.0, 0.5], [0, 1])
    assert (two.constant, two.clusters, two.flag) == (pytest.approx(0.5), 2, "two values: no standard error")
    assert np.isnan(two.se)


@pytest.mark.parametrize(
    ("steps", "injections", "window", "t_inj", "t_lam"),
    [
        (STEPS, [100, 400], 50, [100, 400], [107, 407]),
        (STEPS, [100, 400], 3, [100, 400], [103, 403]),  # the window ends before the peak
        (np.arange(0, 1001, 10), [104], 50, [100], [110]),  # states every ten steps; the peak itself is at 111
        (np.arange(0, 1001, 100), [110], 50, [], []),  # nothing was evaluated within the window
        (np.arange(0, 1001, 100), [160], 50, [], []),  # nothing shortly before it
        (np.arange(0, 1001, 10), [101, 104, 109], 50, [100], [120]),  # between two states: one injection
        (np.arange(0, 1001, 10), [104, 300], 50, [100, 300], [110, 310]),
        (STEPS, [], 50, [], []),
        (STEPS, [1000], 50, [], []),
        (STEPS, [100, 100], 50, [100], [107]),
    ],
)
def test_which_states_an_injection_is_seen_in(steps, injections, window, t_inj, t_lam):
    found = peaks(steps, trace(sorted(set(injections)), steps), injections, window)
    assert (found.t_inj.tolist(), found.t_lam.tolist()) == (t_inj, t_lam)


def test_missing_states_are_left_out_and_steps_must_ascend():
    values = trace([100])
    values[[100, 107]] = np.nan
    found = peaks(STEPS, values, [100])
    assert (found.t_inj.tolist(), found.t_lam.tolist()) == ([99], [108])
    with pytest.raises(ValueError, match="ascend"):
        peaks([0, 0, 1], [1, 2, 3], [0])


@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 10), at=st.integers(0, 900))
@settings(max_examples=20, deadline=None)
def test_retainability_knows_no_units(shift, scale, at):
    plain = retainability(STEPS, trace([at]), [at])
    moved = retainability(STEPS, shift + scale * trace([at]), [at])
    assert moved.share == pytest.approx(plain.share, abs=1e-6)
    assert moved.since.tolist() == plain.since.tolist()
    assert len(plain.since) == max(0, 1000 - at - 7)


def test_retainability_counts_from_before_the_first_injection():
    values = trace([100, 400])
    since, share = retainability(STEPS, values, [100, 400])
    top, before = values[407], values[100]
    assert share == pytest.approx((values[408:] - before) / (top - before))
    assert since[0] == 1
    assert len(retainability(STEPS, -trace([100]), [100]).since) == 0  # nothing was gained
    assert len(retainability(STEPS[101:], trace([100])[101:], [100]).since) == 0  # no state before
    assert len(retainability(STEPS, trace([100]), []).since) == 0


def test_outliers_by_twice_the_interquartile_range():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])  # quartiles 2 and 4
    assert without_outliers(np.append(values, 8.0), factor=10).all()
    grid = np.linspace(-5, 12, 171)
    kept = [without_outliers(np.r_[np.tile(values, 1000), each])[-1] for each in grid]
    assert grid[kept].min() == pytest.approx(-2.0)
    assert grid[kept].max() == pytest.approx(8.0)
    assert without_outliers([]).tolist() == []


def test_clustered_error_covers_and_one_value_a_fact_is_the_plain_sandwich():
    rng = np.random.default_rng(0)
    since = np.tile([1, 3, 10, 30, 100, 300], 20)
    fact = np.repeat(np.arange(20), 6)
    covered, naive, slopes = 0, 0, []
    for _ in range(400):
        own = rng.normal(0, 0.1, 20)[fact] * np.log10(since) + rng.normal(0, 0.02, len(since))
        share = 1 - RATE * np.log10(since) + own
        fit = fit_decay(since, share, fact)
        low, high = fit.interval()
        covered += low <= RATE <= high
        line = linregress(np.log10(since), share)
        assert fit.constant == pytest.approx(-line.slope)
        naive += abs(-line.slope - RATE) <= 1.98 * line.stderr
        slopes.append(fit.constant)
    assert 0.92 < covered / 400 < 0.98
    assert naive / 400 < 0.85  # what ignoring the facts would give
    x, y = np.log10(since), 1 - RATE * np.log10(since) + rng.normal(0, 0.1, len(since))
    fit = fit_decay(since, y, np.arange(len(x)))
    residual = y - fit.intercept + fit.constant * x
    n, centred = len(x), x - x.mean()
    sandwich = np.sqrt((centred**2 * residual**2).sum()) / (centred**2).sum()
    assert fit.se == pytest.approx(sandwich * np.sqrt(n / (n - 1) * (n - 1) / (n - 2)))


@pytest.mark.parametrize("since", [[5], [5, 5, 5]])
def test_a_decay_needs_two_times(since):
    fit = fit_decay(since, np.ones(len(since)), np.arange(len(since)))
    assert np.isnan(fit.constant)
    assert fit.flag == "fewer than two times since the peak"
    assert np.isnan(fit.interval()).all()


PLANTED = {0: [], 1: [100], 2: [100, 400]}  # dose -> injections


def tables(seeds=(0, 1), facts=4, drift=0.0, control=True, extra=()):
    """Facts f<dose>_<i>, a semantic and a memorization probe each; the control drifts with the treated arm."""
    steps = np.arange(0, 1001, 10)
    rows, ledger = list(extra), []
    rng = np.random.default_rng(1)
    for seed in seeds:
        for dose, injections in PLANTED.items():
            for i in range(facts):
                fact = f"f{dose}_{i}"
                gain = GAIN + 0.1 * i + 0.05 * seed
                for kind in ("memorization", "semantic"):
                    size = gain if kind == "memorization" else gain / 2
                    moved = drift * steps / 1000 + rng.normal(0, 0.001, len(steps))
                    arms = {"treated": trace(injections, steps, 10, gain=size) + moved, "control": BASE + moved}
                    for arm in arms if control else ["treated"]:
                        for step, value in zip(steps.tolist(), arms[arm].tolist(), strict=True):
                            for metric, number in (
                                ("target_logprob", value), ("target_prob", np.exp(value)), ("acc", float(value > -17)),
                            ):  # fmt: skip
                                task = f"knowledge/{kind}"
                                item = f"{fact}:{kind}0"
                                rows.append(("knowledge", task, item, metric, number, arm, seed, step, ""))
                ledger += [("", seed, "knowledge", f"{fact}:text0", dose, step, 9, "planted") for step in injections]
                ledger.append(("", seed, "knowledge", f"{fact}:text1", dose, -1, 9, "skipped"))

    def table(values, schema):
        columns = zip(*values, strict=True)
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)

    return {each.name: each for each in knowledge_tables(table(rows, RESULTS), table(ledger, LEDGER))}


def test_the_tables_say_what_was_planted():
    found = tables(extra=[("multiple_choice", "arc", "q1", "acc", 1.0, "treated", 0, 5, "")])
    assert set(found) == {"traces", "effectivity", "decay"}
    points = {(r.type, r.dose, r.arm, r.seed, r.step): r for r in found["traces"].rows}
    assert len(points) == 2 * 3 * 2 * 2 * 101
    at = points["memorization", 1, "treated", 0, 110]
    assert (at.n, at.log_prob, at.accuracy) == (4, pytest.approx(BASE + GAIN + 0.15, abs=0.01), 1.0)
    assert points["memorization", 0, "treated", 0, 110].log_prob == pytest.approx(BASE, abs=0.01)
    effects = {(r.type, r.dose, r.against, r.outliers, r.seed): r for r in found["effectivity"].rows}
    assert {dose for _, dose, *_ in effects} == {1, 2}
    for seed in (0, 1):
        row = effects["memorization", 1, "", True, seed]
        assert row.estimate == pytest.approx(GAIN + 0.15 + 0.05 * seed, abs=0.01)
        assert (row.n, row.facts) == (4, 4)
        assert row.low < GAIN + 0.15 + 0.05 * seed < row.high
        assert effects["semantic", 1, "", True, seed].estimate == pytest.approx(row.estimate / 2, abs=0.01)
        assert effects["memorization", 2, "", True, seed].n == 8
    over = effects["memorization", 1, "", True, None]
    assert (over.facts, over.n) == (2, 8)
    assert over.estimate == pytest.approx(GAIN + 0.175, abs=0.01)
    decays = {(r.type, r.dose, r.against, r.outliers, r.seed): r for r in found["decay"].rows}
    assert decays["memorization", 1, "", True, 0].estimate == pytest.approx(RATE, abs=0.01)
    assert decays["memorization", 1, "", True, 0].lost_at == pytest.approx(10 ** (1 / RATE), rel=0.1)
    assert decays["semantic", 1, "", False, None].facts == 2


def test_what_the_control_learns_too_is_taken_off():
    rows = tables(drift=5.0)["decay"].rows
    against = {r.against: r.estimate for r in rows if (r.type, r.dose, r.seed, r.outliers) == ("semantic", 1, 0, True)}
    assert against["control"] == pytest.approx(RATE, abs=0.01)
    assert against[""] < RATE - 0.2  # the drift passes for memory
    assert {row.against for row in tables(control=False)["decay"].rows} == {""}


def test_what_is_said_of_one_seed_is_said_over_seeds():
    flat = [
        ("knowledge", "knowledge/semantic", "f1_0:semantic1", metric, BASE, "treated", 0, step, "")
        for step in range(0, 1001, 10)
        for metric in ("target_logprob", "target_prob", "acc")
    ]
    rows = tables(extra=flat)["decay"].rows
    flags = {r.seed: r.flag for r in rows if (r.type, r.dose, r.against, r.outliers) == ("semantic", 1, "", True)}
    assert flags[1] == ""
    assert flags[0] == flags[None] == "1 of 5 probes gained nothing or have no state after their peak"


def test_outliers_are_in_and_out():
    """One fact of eight that gains a hundred times as much moves the mean, and is left out of the other row."""
    rows = tables(seeds=(0,), facts=8)["effectivity"].rows
    assert all(row.n == 8 * row.dose for row in rows)
    table = {each: knowledge_tables(*_scaled(each)) for each in (1.0, 100.0)}
    means = {
        (scale, row.outliers): row.estimate
        for scale, (_, effectivity, _) in table.items()
        for row in effectivity.rows
        if (row.type, row.dose, row.against) == ("semantic", 1, "")
    }
    assert means[100.0, True] > 5 * means[1.0, True]
    assert means[100.0, False] == pytest.approx(means[1.0, True], rel=0.05)


def _scaled(scale):
    steps = np.arange(0, 301, 10)
    rows, ledger = [], []
    for i in range(8):
        values = (
            trace([100], steps, 10, gain=1 + 0.01 * i) if i else BASE + scale * (trace([100], steps, 10, gain=1) - BASE)
        )
        rows += [
            ("k", "knowledge/semantic", f"f{i}:semantic0", metric, float(v), "treated", 0, int(s), "")
            for s, v in zip(steps, values, strict=True)
            for metric in ("target_logprob", "target_prob", "acc")
        ]
        ledger.append(("", 0, "knowledge", f"f{i}:text0", 1, 100, 9, "planted"))
    out = []
    for values, schema in ((rows, RESULTS), (ledger, LEDGER)):
        columns = zip(*values, strict=True)
        out.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
    return out


def test_one_seed_gives_no_statement_over_seeds_and_tables_go_to_arrow():
    found = tables(seeds=(0,))
    assert all(row.seed == 0 for row in found["effectivity"].rows)
    arrow = found["decay"].to_arrow()
    assert arrow.num_rows == len(found["decay"].rows)
    assert arrow["estimate"].null_count == 0


def test_no_probes_no_tables():
    ledger = LEDGER.empty_table()
    assert knowledge_tables(RESULTS.empty_table(), ledger) == []
