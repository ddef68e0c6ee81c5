"""The noise floor drawn, a picture for each metric that is best known; and how a page calls the variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.noise_floor import Floor
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.floor_figure import differences, floor_pictures
from pretrain_exp.report.write import write_report

SMALL = {"items": 40, "doses": (0, 1), "curve_steps": 0}
FLOOR = Floor("e", "t", "acc", "", 9, 3, 0.2, (0.1, 0.2, 0.3), 0.1, 0.2, 0.6, 0.1, {3: 0.4})


def controls(seeds: tuple[int, ...]) -> StudyData:
    """Runs without any edit."""
    study = simulated_study(seeds, **SMALL)
    chosen = study.results.filter(pc.equal(study.results["arm"], "control"))
    return replace(study, results=chosen, items=study.items.slice(0, 0), ledger=study.ledger.slice(0, 0))


def test_every_two_runs_both_ways_round() -> None:
    found = {(row["first"], row["second"]): row["difference"] for row in differences(FLOOR)}
    assert found == pytest.approx({(0, 1): -0.1, (0, 2): -0.2, (1, 0): 0.1, (1, 2): -0.1, (2, 0): 0.2, (2, 1): 0.1})
    assert "means" not in FLOOR.row()


@pytest.mark.parametrize(
    ("floors", "names"),
    [
        ([], []),
        ([FLOOR], ["noise_floor-acc"]),
        ([FLOOR, replace(FLOOR, metric="gold_ce")], ["noise_floor-acc"]),  # of a task the best-known metric
        ([FLOOR, replace(FLOOR, task="u", metric="ce")], ["noise_floor-acc", "noise_floor-ce"]),
        ([replace(FLOOR, sd_runs=0.0)], []),
    ],
)
def test_a_picture_for_each_metric_that_is_best_known(floors: list[Floor], names: list[str]) -> None:
    scores = analyse(controls((0, 1)), resamples=20).design.scores
    assert [picture.name for picture in floor_pictures(floors, scores)] == names


def test_the_page_shows_it_below_the_answer(tmp_path: Path) -> None:
    written = write_report(controls((0, 1, 2)), tmp_path / "report")
    page = written.html.read_text(encoding="utf-8")
    title = 'aria-label="What two runs without any edit differ by: accuracy"'
    assert page.count(title) == 1
    assert "<dt>seeds</dt><dd>0, 1, 2</dd>" in page
    assert page.index(title) < page.index('id="changed"')
    with pa.memory_map(str(written.figures / "noise_floor-acc.csv")) as file:
        assert pa.csv.read_csv(file).num_rows == 6


def test_a_page_calls_a_range_as_one_would_say_it(tmp_path: Path) -> None:
    ranges = ("range={start:0,end:0.5,unit:share}", "range={start:0.5,end:1,unit:share}")
    study = simulated_study((0, 1), **SMALL, members=ranges, sweep="condition")
    written = write_report(study, tmp_path / "report", analyse(study, resamples=20))
    page = written.html.read_text(encoding="utf-8")
    assert "(range=50 to 100 % of the run, planted)" in page
    assert "analysed apart and then compared: range=0 to 50 % of the run, range=50 to 100 % of the run." in page
    assert {path.stem for path in written.figures.glob("variants-*.png")} == {"variants-acc", "variants-gold_ce"}
