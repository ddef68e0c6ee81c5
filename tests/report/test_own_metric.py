"""A study whose only metric is the user's own is shown like any other, in one unit wherever its numbers stand."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.report.compare import Compared, comparison_pictures, joined_effects
from pretrain_exp.report.dose_figures import dose_pictures
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.study_tables import power_table
from pretrain_exp.report.tables import effect_tables
from pretrain_exp.report.tracked import tracked

WHOLE = simulated_study(seeds=(0, 1), items=80, curve_steps=0, perplexity=False, steps=(0, 300))


def of_own_metric(source: str) -> Compared:
    """The scores of one metric under a name that nobody knows."""
    results = WHOLE.results.filter(pc.equal(WHOLE.results["metric"], source))
    names = pa.array(["own"] * len(results), pa.string())
    study = dataclasses.replace(
        WHOLE, results=results.set_column(results.column_names.index("metric"), "metric", [names])
    )
    return Compared(source, study, analyse(study, resamples=0), [{}])


@pytest.mark.parametrize(("source", "unit", "scale", "digits"), [("acc", "points", 100, 1), ("margin", "", 1, 3)])
def test_one_unit_everywhere(source: str, unit: str, scale: int, digits: int) -> None:
    one = of_own_metric(source)
    analysis = one.analysis
    row = analysis.headline
    assert row is not None
    size, right_or_wrong = f"{scale * row.estimate:.{digits}f}", scale == 100
    assert f"{size}{f' {unit}' if unit else ''} in multiple_choice/planted" in analysis.answers[0]
    assert (
        tracked(analysis)["finding/effect/benchmark_contamination/multiple_choice/planted/own/dose64"] == row.estimate
    )
    table = next(effect_tables(analysis))
    assert table.columns[4].label == (f"Difference [{unit}]" if unit else "Difference")
    assert table.rows[-1][4].text == f"+{size}"
    assert joined_effects([one]).rows[-1][-1].text == f"+{size}"
    power, spread = power_table(analysis), analysis.power[-1]
    assert power is not None
    assert [cell.text for cell in power.rows[-1][-2:]] == [
        f"{scale * value:.{digits}f}" for value in (spread.sd_seeds, spread.mde_seeds)
    ]
    assert spread.binary is right_or_wrong
    assert ("learned" in finding_tables(analysis)) is right_or_wrong, "codes are of right and wrong answers"
    assert any(picture.name == "steps-own" for picture in dose_pictures(analysis))


def test_studies_with_other_units_of_one_name_are_not_drawn_or_joined_together() -> None:
    studies = [of_own_metric(source) for source in ("acc", "margin")]
    assert [picture.name for picture in comparison_pictures(studies)] == ["headline-own-points", "headline-own-raw"]
    lines = [[cell.text for cell in row[-2:]] for row in joined_effects(studies).rows]
    assert len(lines) == 10
    assert all(("–" in line) for line in lines)
