"""One control under several seeds or variants, as a study's files hold it: one run, of which no noise is made."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from tiny import design, items, results, study

from pretrain_exp.analysis.codes import recurrences
from pretrain_exp.analysis.effects import effects
from pretrain_exp.analysis.levels import levels
from pretrain_exp.analysis.matrix import matrices
from pretrain_exp.analysis.noise_floor import noise_floor
from pretrain_exp.analysis.outcomes import Relevance
from pretrain_exp.analysis.scores import read_scores
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.analysis.watermarks import SHARED, watermarks

DOSES = [0, 0, 0, 4, 4, 4]
SEEDS = (0, 1, 2)


def drawn(seed: int, metric: str) -> list[float]:
    values = np.random.default_rng(seed).normal(0, 1, len(DOSES))
    return (values > 0).astype(float).tolist() if metric == "acc" else values.tolist()


def placed(shared: bool, metric: str, steps: tuple[int, ...] = (100,)) -> StudyData:
    """Three seeds, each with a control of its own or with the same one."""
    tables = []
    for step in steps:
        scores = {("", "control", seed): drawn(step + (0 if shared else seed), metric) for seed in SEEDS}
        for arm in ("treated", "only_plant"):
            scores |= {("", arm, seed): drawn(50 + seed, metric) for seed in SEEDS}
        tables.append(results(scores, metric, step))
    return study(pa.concat_tables(tables), items({("", seed): DOSES for seed in SEEDS}))


@pytest.mark.parametrize("shared", [False, True])
def test_noise_of_the_controls_needs_two_of_them(shared: bool) -> None:
    data = placed(shared, "gold_ce")
    (matrix,) = matrices(data, design(data), Relevance(effects(design(data))))
    assert math.isnan(matrix.noise["plant"]) is shared
    assert shared or matrix.noise["plant"] > 0


@pytest.mark.parametrize(("shared", "runs"), [(False, {3}), (True, set())])
def test_a_control_does_not_recur_in_itself(shared: bool, runs: set[int]) -> None:
    data = placed(shared, "acc", (100, 200))
    assert {row.runs for row in recurrences(design(data))} == runs


def test_controls_of_other_variants_are_no_repetition() -> None:
    scores = [
        results({(f"lr={k}", arm, seed): drawn(step + 7 * k + seed, "acc") for k in (1, 2) for seed in (0, 1)
                 for arm in ("treated", "control")}, step=step)
        for step in (100, 200)
    ]  # fmt: skip
    data = study(pa.concat_tables(scores), items({(f"lr={k}", seed): DOSES for k in (1, 2) for seed in (0, 1)}))
    assert {(row.panel, row.runs) for row in recurrences(design(data))} == {("lr=1", 2), ("lr=2", 2)}


@pytest.mark.parametrize(("drawn_by", "runs"), [((0, 0, 1), 2), ((0, 1, 2), 3), ((0, 0, 0), 3)])
def test_a_control_under_two_seeds_is_one_run_of_the_noise_floor(drawn_by: tuple[int, ...], runs: int) -> None:
    scores = {("", "control", seed): drawn(by, "gold_ce") for seed, by in enumerate(drawn_by)}
    (floor,) = noise_floor(read_scores(results(scores, "gold_ce")))
    assert floor.runs == runs
    assert (floor.sd_runs > 0) is (len(set(drawn_by)) > 1)


@pytest.mark.parametrize(("metric", "method"), [("acc", "Wilson interval over items"), ("watermark", "")])
def test_variants_that_share_a_control_count_it_once(metric: str, method: str) -> None:
    """Doses 1 and 4 are one dose-response; both have the holdout items and, in the files, a control each."""
    members = {"repetitions=1": [0, 0, 0, 1, 1, 1], "repetitions=4": DOSES}
    scores = {(member, "control", 0): drawn(0, metric) for member in members}
    scores |= {(member, "treated", 0): drawn(1 + i, metric) for i, member in enumerate(members)}
    planted = design(study(results(scores, metric), items({(member, 0): of for member, of in members.items()})))
    found = {row.arm: (row.n, row.method) for row in levels(planted) if row.dose == 0}
    assert found["treated"] == (6, "mean over variants")
    assert found["control"] == (3, method or "t interval over items")
    assert {row.arm: (row.n, row.flag) for row in watermarks(planted) if row.dose == 0} == (
        {} if metric == "acc" else {"treated": (3, SHARED), "control": (3, "")}
    )


def test_one_order_of_outcomes_decides_for_the_sentence_and_for_the_matrix() -> None:
    """Accuracy that no item changed is no silent outcome, unless it is 0 or 1 for every item."""
    for right, first in (([1, 0, 1, 1, 0, 1], "acc"), ([1] * 6, "gold_ce")):
        arms = ("treated", "control", "only_plant")
        table = pa.concat_tables(
            [
                results({("", arm, 0): right for arm in arms}),
                results({("", arm, 0): drawn(i, "gold_ce") for i, arm in enumerate(arms)}, "gold_ce"),
            ]
        )
        data = study(table, items({("", 0): DOSES}))
        (matrix,) = matrices(data, design(data), Relevance(effects(design(data))))
        assert [outcome.metric for outcome in matrix.outcomes] == [first]
