"""Whole studies with a known truth: what the report concludes is what was simulated."""

import numpy as np
import pytest
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.answer import matching
from pretrain_exp.analysis.estimate import Estimate

LEAN = {"perplexity": False, "curve_steps": 0}


def rows(estimates: list[Estimate], **where: object) -> list[Estimate]:
    return [row for row in estimates if all(getattr(row, key) == value for key, value in where.items())]


def test_the_default_experiment() -> None:
    analysis = analyse(simulated_study(effect=1.0, placebo=True, **LEAN))
    estimates = analysis.estimates
    acc = {"metric": "acc", "contrast": "treated_vs_control"}
    top = rows(estimates, dose=64, scope="run", **acc)
    assert len(top) == 3
    assert all(row.p < 0.001 for row in top)
    (holdout,) = rows(estimates, dose=0, scope="seeds", **acc)
    assert holdout.low < 0 < holdout.high
    means = [row.estimate for row in rows(estimates, scope="seeds", **acc)]
    assert means == sorted(means)
    (slope,) = rows(estimates, contrast="slope", scope="seeds")
    assert slope.low > 0
    assert slope.estimate == pytest.approx(0.9, abs=0.15)  # 1.0 for each item, less where items of all difficulties mix
    assert all(row.p_adjusted > 0.05 for row in rows(estimates, contrast="placebo_vs_control", scope="seeds"))
    assert analysis.headline is not None
    assert analysis.headline.dose == 64


def test_without_an_effect_little_is_found() -> None:
    """20 studies without an effect, 15 tests each: the smallest adjusted p is below 0.05 in few of them."""
    smallest: dict[str, list[float]] = {"run": [], "seeds": []}
    for seed in range(20):
        study = simulated_study(effect=0.0, items=200, between=0.0, rng_seed=seed, **LEAN)
        found = rows(analyse(study, resamples=0).estimates, contrast="treated_vs_control")
        for scope in smallest:
            smallest[scope].append(min(r.p_adjusted for r in found if r.scope == scope and r.seed in (None, 0)))
    for values in smallest.values():
        assert np.mean(np.array(values) < 0.05) <= 0.2


def test_a_dose_sweep_gives_the_effects_of_its_variants() -> None:
    members = ("repetitions=1", "repetitions=4", "repetitions=16", "repetitions=64")
    study = simulated_study(members=members, **LEAN)
    analysis = analyse(study, resamples=0)
    found = rows(analysis.estimates, contrast="treated_vs_control", metric="acc", scope="seeds")
    assert [row.dose for row in found] == [0, 1, 4, 16, 64]
    table = study.results.to_pandas()
    doses = study.items.to_pandas()
    for row in found[1:]:
        effects = []
        for seed in (0, 1, 2):
            items = set(doses[(doses.seed == seed) & (doses.dose == row.dose)]["item"])
            own = table[(table.seed == seed) & (table.metric == "acc") & table["item"].isin(items)]
            treated = own[(own.arm == "treated") & (own.member == f"repetitions={row.dose}")].value.mean()
            effects.append(treated - own[own.arm == "control"].value.mean())
        assert row.estimate == pytest.approx(np.mean(effects))


def test_variants_are_told_apart() -> None:
    study = simulated_study(members=("lr=0.001", "lr=0.0003"), sweep="condition", items=1000, **LEAN)
    analysis = analyse(study, resamples=0)
    assert [panel.label for panel in analysis.design.panels] == ["lr=0.001", "lr=0.0003"]  # as typed
    (row,) = rows(analysis.estimates, contrast="member_vs_member", metric="gold_ce", dose=64, scope="seeds")
    assert row.panel == "lr=0.0003 − lr=0.001"
    truth = 0.35 * (1.0 - 0.6) * np.log(65)
    assert row.low < truth < row.high


def test_matching_finds_the_row_of_another_dose() -> None:
    estimates = analyse(simulated_study(items=100, **LEAN), resamples=0).estimates
    (row,) = rows(estimates, contrast="treated_vs_control", metric="acc", dose=64, scope="seeds")
    holdout = matching(estimates, row, dose=0)
    assert holdout is not None
    assert (holdout.dose, holdout.scope, holdout.metric) == (0, "seeds", "acc")
    assert matching(estimates, row, dose=5) is None
