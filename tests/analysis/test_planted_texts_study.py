"""A study that plants texts only: no accuracy, and an answer all the same."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from tiny import items, results, study

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.study import StudyData

DOSES = [0] * 20 + [1] * 20 + [8] * 20


def planted(seeds: tuple[int, ...] = (0,), doses: list[int] = DOSES, true: float = 0.5) -> StudyData:
    """Reading a text r times lowers its cross-entropy by true * log(1 + r)."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(20, 60, len(doses)).astype(float)
    ce, nll, size = {}, {}, {}
    for seed in seeds:
        control = rng.normal(3.2, 0.3, len(doses))
        gain = true * np.log1p(doses) + rng.normal(0, 0.1, len(doses))
        for arm, values in (("control", control), ("treated", control - gain)):
            run = "", arm, seed
            ce[run], nll[run], size[run] = values.tolist(), (values * tokens).tolist(), tokens.tolist()
    where = {"evaluation": "planted_texts", "task": "add_texts"}
    metrics = (("ce", ce), ("nll", nll), ("tokens", size), ("bytes", size))
    table = pa.concat_tables([results(values, metric, **where) for metric, values in metrics])
    return study(table, items({("", seed): doses for seed in seeds}, insertion="add_texts"))


def differences(data: StudyData, dose: int) -> np.ndarray:
    rows = data.results.to_pandas()
    rows = rows[rows.metric == "ce"].pivot(index="item", columns="arm", values="value")
    at = [f"i{index}" for index, of_item in enumerate(DOSES) if of_item == dose]
    return (rows.treated - rows.control).loc[at].to_numpy()


def found() -> tuple[StudyData, Analysis]:
    data = planted()
    return data, analyse(data, resamples=50)


def test_cross_entropy_is_the_headline_at_the_highest_dose() -> None:
    data, analysis = found()
    row = analysis.headline
    assert row is not None
    assert (row.metric, row.dose, row.contrast, row.n) == ("ce", 8, "treated_vs_control", 20)
    expected = t_interval(differences(data, 8))
    assert (row.estimate, row.low, row.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert row.high < 0


def test_the_answer_says_by_how_much() -> None:
    data, analysis = found()
    (answer,) = analysis.answers
    fall = -differences(data, 8).mean()
    assert answer.startswith(f"Reading a text 8 times lowered its cross-entropy by {fall:.3f} nats per token")
    assert "in planted_texts/add_texts (one run; 95 % paired t interval over items: " in answer
    assert "Holdout texts, never read: " in answer


def test_every_dose_has_its_effect_on_the_same_items() -> None:
    rows = {r.dose: r for r in found()[1].estimates if (r.contrast, r.metric) == ("treated_vs_control", "ce")}
    assert {dose: row.scope for dose, row in rows.items()} == {0: "run", 1: "run", 8: "run"}
    for dose, row in rows.items():
        assert row.estimate == pytest.approx(-0.5 * math.log1p(dose), abs=0.1)


def test_sizes_are_no_outcomes() -> None:
    assert {row.metric for row in found()[1].estimates} == {"ce", "nll"}


def test_over_seeds_the_seed_is_the_unit() -> None:
    analysis = analyse(planted(seeds=(0, 1, 2)), resamples=50)
    assert analysis.headline is not None
    assert analysis.headline.scope == "seeds"
    assert "t interval over 3 seeds" in analysis.answers[0]


def test_one_dose_for_all_needs_no_holdout() -> None:
    (answer,) = analyse(planted(doses=[8] * 30)).answers
    assert answer.startswith("Reading a text 8 times lowered")
    assert "Holdout" not in answer
