"""Probes of one fact are one observation: their mean is tested, facts are counted, and the null keeps its rate."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tiny import design, items, results, study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.effects import effects
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.fading import _fade, fading
from pretrain_exp.analysis.forgetting import Decay
from pretrain_exp.analysis.matrix import matrices
from pretrain_exp.analysis.means import t_interval, welch
from pretrain_exp.analysis.outcomes import Relevance
from pretrain_exp.analysis.study import LEDGER, StudyData

PROBES = 4
FACTS = 12  # the first half is held out, the other planted 4 times
DOSES = [0 if fact < FACTS // 2 else 4 for fact in range(FACTS) for _ in range(PROBES)]


def facts(values: dict[str, np.ndarray], metric: str = "target_logprob", **fields: object) -> StudyData:
    """values: arm -> (facts, probes). Item i of tiny.py is renamed to the probe of a fact."""
    scores = results({("", arm, 0): of.ravel().tolist() for arm, of in values.items()}, metric, task="plant/semantic")
    return study(_named(scores), _named(items({("", 0): DOSES})), **fields)


def _named(table: pa.Table) -> pa.Table:
    names = [int(name[1:]) for name in table["item"].to_pylist()]
    probes = pa.array([f"fact{i // PROBES:02d}:semantic{i % PROBES}" for i in names])
    return table.set_column(table.column_names.index("item"), "item", probes)


def drawn(seed: int = 0, shared: float = 1.0) -> dict[str, np.ndarray]:
    """Each arm moves a fact as a whole, and every probe a little by itself: no effect of the dose."""
    rng = np.random.default_rng(seed)
    return {
        arm: rng.normal(0, shared, (FACTS, 1)) + rng.normal(0, 0.3, (FACTS, PROBES)) for arm in ("treated", "control")
    }


def one(rows: list[Estimate], **where: object) -> Estimate:
    (found,) = [row for row in rows if all(getattr(row, key) == value for key, value in where.items())]
    return found


def test_the_mean_over_a_facts_probes_is_paired_and_facts_are_counted() -> None:
    values = drawn()
    rows = effects(design(facts(values)))
    change = (values["treated"] - values["control"]).mean(1)
    row, expected = one(rows, contrast="treated_vs_control", dose=4), t_interval(change[FACTS // 2 :])
    assert (row.n, row.counted, row.method) == (FACTS // 2, "facts", "paired t interval over facts")
    assert (row.estimate, row.low, row.high, row.p) == pytest.approx(
        tuple(float(x) for x in (expected.mean, expected.low, expected.high, expected.p))
    )
    gap = one(rows, contrast="dose_vs_holdout")
    means = values["treated"].mean(1)
    apart = welch(means[FACTS // 2 :], means[: FACTS // 2])
    assert (gap.n, gap.low) == (FACTS, pytest.approx(float(apart.low)))
    assert one(rows, contrast="difference_in_differences").method == "Welch t interval over paired differences of facts"


def test_right_or_wrong_probes_of_a_fact_are_no_pairs_of_mcnemar() -> None:
    values = {arm: (of > 0).astype(float) for arm, of in drawn().items()}
    found = analyse(facts(values, "acc"), resamples=0)
    rows = [row for row in found.estimates if row.contrast == "treated_vs_control"]
    assert {(row.b, row.counted, row.p_method) for row in rows} == {(None, "facts", "paired t")}
    assert {(level.n, level.counted, level.method) for level in found.levels} == {
        (FACTS // 2, "facts", "t interval over facts")
    }
    assert {(power.n, power.counted) for power in found.power} == {(FACTS // 2, "facts")}


def test_one_probe_a_fact_is_an_item() -> None:
    scores = results({("", arm, 0): [1.0, 0.0, 1.0, 1.0] for arm in ("treated", "control")})
    plain = study(scores, items({("", 0): [0, 0, 4, 4]}))
    row = one(effects(design(plain)), contrast="treated_vs_control", dose=4)
    assert (row.counted, row.p_method) == ("items", "exact McNemar")


def test_under_the_null_the_rate_is_nominal_where_probes_as_items_would_reject_too_often() -> None:
    naive, clustered = [], []
    for seed in range(150):
        values = drawn(seed)
        clustered.append(one(effects(design(facts(values))), contrast="treated_vs_control", dose=4).p)
        naive.append(float(t_interval((values["treated"] - values["control"])[FACTS // 2 :].ravel()).p))
    assert np.mean(np.array(clustered) < 0.05) < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(np.array(naive) < 0.05) > 0.2


def test_slopes_cluster_by_fact_and_a_trend_of_probes_is_not_given() -> None:
    values = {arm: (of > 0).astype(float) for arm, of in drawn().items()}
    doses = [(0, 1, 4)[fact % 3] for fact in range(FACTS) for _ in range(PROBES)]
    scores = results({("", arm, 0): of.ravel().tolist() for arm, of in values.items()}, "acc")
    found = analyse(study(_named(scores), _named(items({("", 0): doses}))), resamples=0)
    (fit,) = found.responses
    slope, trend = (one(fit.rows, contrast=contrast) for contrast in ("slope", "trend"))
    assert (fit.fit.n, fit.fit.clusters) == (FACTS * PROBES, FACTS)
    assert f"clustered by {FACTS} facts" in slope.method
    assert np.isnan(trend.p)
    assert "not independent" in trend.flag


def test_a_bin_of_forgetting_counts_facts_also_where_they_are_seen_at_several_states() -> None:
    rng = np.random.default_rng(0)
    states, steps = (60, 80, 100), {fact: int(rng.integers(0, 50)) for fact in range(FACTS // 2, FACTS)}
    tables = []
    for state in states:
        values = {
            arm: rng.normal(0, 0.01, (FACTS, PROBES)) + np.arange(FACTS)[:, None] * (arm == "treated")
            for arm in ("treated", "control")
        }
        run = {("", arm, 0): of.ravel().tolist() for arm, of in values.items()}
        tables.append(_named(results(run, "target_logprob", state, task="plant/semantic")))
    ledger = pa.Table.from_pylist(
        [
            {"member": "", "seed": 0, "insertion": "plant", "item": f"fact{fact:02d}:text0", "dose": 4, "step": step}
            | {"length": 9, "status": "planted"}
            for fact, step in steps.items()
        ],
        schema=LEDGER,
    )
    data = study(pa.concat_tables(tables), _named(items({("", 0): DOSES})), ledger=ledger)
    points, fades, scant = fading(data, design(data))
    assert points
    assert scant == {}
    assert all(point.n <= FACTS // 2 and point.counted == "facts" for point in points)
    assert {(fade.n, fade.counted) for fade in fades} == {(FACTS // 2 * PROBES * len(states), FACTS // 2)}
    assert all(fade.flag and np.isnan(fade.half_life) for fade in fades), "nothing fades here"


def test_the_matrix_of_dependence_counts_facts() -> None:
    values = drawn()
    data = facts({**values, "only_plant": values["treated"] + 1.0})
    planted = design(data)
    (matrix,) = matrices(data, planted, Relevance(effects(planted)))
    cell = matrix.cell("plant", "plant")
    assert cell is not None
    assert (cell.n, cell.method) == (FACTS // 2, "paired t over facts")


@pytest.mark.parametrize(
    ("each", "times"), [([1, 1, 1, 1], 1.0), ([3, 3, 3], 3.0), ([9, 1], 8.2), ([5], 5.0), ([6, 1, 1, 1], 39 / 9)]
)
def test_the_error_of_a_curve_counts_facts_by_their_effects(each: list[int], times: float) -> None:
    """n over Kish's effective number of facts times the variance; with equal counts it is that number."""
    nan = float("nan")
    fitted = Decay("logarithmic", (1.0, -0.1), (0.0, 0.01), 1e3, nan, 0.0, sum(each))
    where = {"panel": "", "insertion": "i", "evaluation": "e", "task": "t", "metric": "m", "dose": 1, "unit": "tokens"}
    row = _fade(where, 0, fitted, 1e4, np.array(each))
    assert row.error == pytest.approx(0.01 * times**0.5)
    assert row.counted == len(each)
