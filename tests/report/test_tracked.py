"""The numbers that trackers get: their names, and that each is the row to conclude from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from outcome_studies import canaries, facts, fading, noise
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.dependence import Cell
from pretrain_exp.analysis.matrix import Matrix, Outcome
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.tracked import tracked
from pretrain_exp.report.write import write_report


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (
            lambda: canaries(seeds=(0, 1), a_cell=12, doses=(0, 4)),
            {
                "finding/membership/canaries/membership/min_k/rare tokens/dose4/treated/auc",
                "finding/membership/canaries/membership/min_k/all/dose4/above_control/tpr_at_0.01",
                "finding/effect/canaries/verbatim/canaries/exact/dose4",
            },
        ),
        (
            lambda: fading(seeds=(0, 1)),
            {"finding/forgetting/add_texts/planted_texts/add_texts/ce/dose1/exponential/half_life"},
        ),
        (lambda: noise(), {"finding/watermark/gaussian_poisoning/gaussian_watermark/planted/treated/dose4/mean"}),
        (
            lambda: facts(seeds=(0, 1), facts_a_dose=5),
            {
                "finding/knowledge/knowledge/memorization/dose16/treated/effectivity",
                "finding/knowledge/knowledge/semantic/dose4/above_control/decay",
                "finding/effect/knowledge/knowledge/memorization/target_logprob/dose16",
            },
        ),
        (
            lambda: simulated_study((0, 1), items=60, curve_steps=0, perplexity=False, steps=(0, 300)),
            {"finding/learned/benchmark_contamination/multiple_choice/planted/acc/dose64/treated/never"},
        ),
    ],
)  # fmt: skip
def test_names_of_each_kind(make: Callable[[], StudyData], names: set[str]) -> None:
    found = tracked(analyse(make(), resamples=10))
    assert names <= set(found)
    assert all(name.startswith("finding/") and math.isfinite(value) for name, value in found.items())


def test_a_number_is_that_of_the_row_over_seeds(tmp_path: Path) -> None:
    study = simulated_study((0, 1), items=60, curve_steps=0, perplexity=False)
    analysis = analyse(study, resamples=0)
    (row,) = [
        r for r in analysis.estimates
        if (r.contrast, r.metric, r.dose, r.scope) == ("treated_vs_control", "acc", 64, "seeds")
    ]  # fmt: skip
    name = "finding/effect/benchmark_contamination/multiple_choice/planted/acc/dose64"
    found = tracked(analysis)
    assert found[name] == row.estimate
    paths = write_report(study, tmp_path / "report", analysis)
    assert json.loads((paths.folder / "tracked.json").read_text()) == found


def test_two_evaluations_of_one_kind_have_numbers_of_their_own() -> None:
    analysis = analyse(canaries(seeds=(0,), a_cell=12, doses=(0, 4)), resamples=0)
    rows = analysis.findings.separations
    both = [*rows, *(dataclasses.replace(row, evaluation="other", estimate=0.0) for row in rows)]
    marks = analyse(noise(seeds=(0,)), resamples=0).findings.watermarks
    marks = [*marks, *(dataclasses.replace(row, evaluation="other", mean=0.0) for row in marks)]
    findings = dataclasses.replace(analysis.findings, separations=both, watermarks=marks)
    found = tracked(dataclasses.replace(analysis, findings=findings))
    for name, end in (
        ("membership/canaries/{}/min_k/all/dose4/treated/auc", "membership"),
        ("watermark/gaussian_poisoning/{}/planted/treated/dose4/mean", "gaussian_watermark"),
    ):
        assert found[f"finding/{name.format('other')}"] == 0
        assert found[f"finding/{name.format(end)}"] != 0


def test_the_matrix_is_among_them() -> None:
    nan = math.nan
    cell = Cell("a", "b", 0.5, nan, nan, nan, nan, nan, 3, 1, "")
    matrix = Matrix("", (Outcome("b", "e", "acc"),), (cell, dataclasses.replace(cell, treatment="b", estimate=nan)), {})
    analysis = analyse(simulated_study((0,), items=20, curve_steps=0, perplexity=False), resamples=0)
    found = tracked(dataclasses.replace(analysis, matrices=[matrix]))
    assert found["finding/dependence/a/b"] == 0.5
    assert "finding/dependence/b/b" not in found, "what has no value is left out"
