"""Which rows and marks stand in tables and pictures: none is lost, none claims more than it is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.figure import Figure
from studies import simulated_study

from pretrain_exp.analysis import dependence
from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.fading import FadedPoint
from pretrain_exp.analysis.matrix import Matrix, Outcome
from pretrain_exp.analysis.metrics import metric
from pretrain_exp.analysis.scores import ASIDE
from pretrain_exp.analysis.study import ITEMS, StudyData
from pretrain_exp.report.axes import difference_axis
from pretrain_exp.report.compare import Compared, comparison_pictures, joined_effects
from pretrain_exp.report.dependence_figure import dependence_pictures
from pretrain_exp.report.dose_figures import dose_pictures
from pretrain_exp.report.finding_figures import finding_pictures
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.html import facts
from pretrain_exp.report.matrix_tables import dependence_table
from pretrain_exp.report.study_tables import changed_table, power_table
from pretrain_exp.report.tables import Cell, effect_tables, side_effect_table

SMALL = simulated_study(seeds=(0, 1), items=60, curve_steps=0, steps=(0, 300))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(SMALL, resamples=0)


def one_seed_of(analysis: Analysis, dose: int | None, task: str) -> Analysis:
    """The analysis as if only seed 0 had been scored there."""
    kept = [
        row for row in analysis.estimates
        if (row.dose, row.task) != (dose, task) or (row.scope == "run" and row.seed == 0)
    ]  # fmt: skip
    levels = [row for row in analysis.levels if row.dose != dose or row.seed == 0]
    return dataclasses.replace(analysis, estimates=kept, levels=levels)


def test_a_dose_or_task_of_one_seed_stands_beside_those_of_several(analysis: Analysis) -> None:
    some = one_seed_of(analysis, 16, "planted")
    table = next(effect_tables(some))
    assert [row[0].text for row in table.rows] == ["holdout", "1", "4", "16", "64"]
    assert [row[0].note for row in table.rows] == ["", "", "", "seed 0 only", ""]
    assert " to " in table.caption.partition("adjusted over ")[2].partition(" comparisons")[0]  # of a run, and of seeds
    for picture in dose_pictures(some):
        if picture.name in ("dose_response-acc", "effect"):
            assert 16 in picture.data["dose"].to_pylist()
    side = side_effect_table(one_seed_of(analysis, None, "wikipedia"))
    assert side is not None
    told = {(row[0].text, row[0].note) for row in side.rows}
    assert told == {
        ("perplexity: all domains", ""), ("perplexity: wikipedia", "seed 0 only"), ("perplexity: stories", ""),
    }  # fmt: skip


def test_two_evaluations_of_one_task_are_compared_apart(analysis: Analysis) -> None:
    other = [dataclasses.replace(row, evaluation="olmes") for row in analysis.estimates]
    both = Compared("a", SMALL, dataclasses.replace(analysis, estimates=[*analysis.estimates, *other]), [])
    table = joined_effects([both])
    assert {row[0].text for row in table.rows} == {"multiple_choice/planted", "olmes/planted"}
    assert not any("; " in row[-1].text for row in table.rows)
    elsewhere = dataclasses.replace(analysis, estimates=other)
    (picture,) = comparison_pictures([both, Compared("b", SMALL, elsewhere, [])])
    figure = Figure()
    picture.draw([figure.subplots()])
    labels = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a, multiple_choice/planted, 64 times", "b, olmes/planted, 64 times"]


def test_what_was_removed_is_drawn_and_has_power() -> None:
    """Where texts were removed there are only groups: these stand for the insertion."""
    plan = SMALL.items
    group = pc.if_else(pc.equal(plan["dose"], 0), "removed", "kept")
    study: StudyData = dataclasses.replace(SMALL, items=plan.set_column(4, "group", group))
    found = analyse(study, resamples=0)
    power = power_table(found)
    assert power is not None
    assert {row[-7].text for row in power.rows} == {"removed"}
    codes = finding_tables(found)["learned"][0]
    assert {row[0].text for row in codes.rows} == {"removed"}
    names = {picture.name for picture in dose_pictures(found)}
    assert {"effect", "items-gold_ce", "steps-acc"} <= names
    assert {row.group for row in found.levels} == {"removed"}
    changed, joined = changed_table(study), joined_effects([Compared("a", study, found, [{}])])
    assert changed is not None
    assert [row[1].text for row in changed.rows][:2] == ["removed", "1"]
    times = [column.label for column in joined.columns].index("Times read")
    assert {row[times].text for row in joined.rows} == {"removed", "1", "4", "16", "64"}


@pytest.mark.parametrize(("effects", "curves"), [((0.1, 0.2, 0.4, 0.8), 0), ((0.8, 0.4, 0.2, 0.1), 1)])
def test_an_effect_that_grows_has_no_exponential(effects: tuple[float, ...], curves: int, analysis: Analysis) -> None:
    points = [
        FadedPoint(
            panel="", insertion="a", evaluation="e", task="t", metric="gold_ce", dose=1, seed=0, bin=i, unit="steps",
            n=9, distance=float(i + 1), counted="items", effect=effect, low=math.nan, high=math.nan,
            weight_left=math.nan, method="t interval over items",
        )
        for i, effect in enumerate(effects)
    ]  # fmt: skip
    only = dataclasses.replace(analysis.findings, faded=points, codes=[])
    (picture,) = finding_pictures(dataclasses.replace(analysis, findings=only, estimates=[]))
    figure = Figure()
    picture.draw([figure.subplots()])
    drawn = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 100]
    assert [line.get_linestyle() for line in drawn] == ["-"] * curves + ["--"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][1:] == ["exponential"] * curves + ["logarithmic"]
    assert max(map(len, figure.axes[0].get_ylabel().splitlines())) < 40  # longer lines are cut off


def test_cells_of_the_matrix_say_their_n_and_what_is_wrong_with_them(analysis: Analysis) -> None:
    differences = {("a", "a"): [np.arange(3.0)], ("b", "a"): [np.ones(4), np.ones(4)], ("a", "b"): [np.arange(5.0)]}
    outcomes = tuple(Outcome(name, "e", "acc") for name in "ab")
    matrix = Matrix("", outcomes, tuple(dependence.dependence(differences)), {"a": 0.1, "b": 0.1})
    table = dependence_table(matrix, analysis.design.scores)
    notes = {(row[0].text, column): row[column].note for row in table.rows for column in (1, 2)}
    assert notes["a alone", 1].endswith("n = 3, 1 seed, D = 1.7, one seed: the interval is over items")
    assert notes["b alone", 1].endswith("n = 4, 2 seeds, D = –, no variance")
    (picture,) = dependence_pictures([matrix], analysis.design.scores)
    for caption in (table.caption, picture.caption):
        for said in ("paired t over items", "t over 2 seeds", "no variance"):
            assert said in caption


@pytest.mark.parametrize(("name", "high", "cut"), [("acc", 0.9, False), ("acc", 3.0, True), ("ce", 3.0, False)])
def test_an_interval_that_is_cut_is_said_to_be(name: str, high: float, cut: bool) -> None:
    axes = Figure().subplots()
    axes.plot([0, 0], [0.1, high])
    difference_axis(axes.yaxis, metric(name, binary=False))
    assert [text.get_text() for text in axes.texts] == ["intervals are cut at ±100 points"] * cut
    assert bool(axes.get_ylim()[1] < high) is cut


@pytest.mark.parametrize(
    ("cell", "order"),
    [
        (Cell("+1.0", 0.01), "0.01"), (Cell("information"), "information"), (Cell("a", "b"), "b"),
        (Cell("–", -math.inf), "-Infinity"), (Cell("never", math.inf), "Infinity"),
    ],
)  # fmt: skip
def test_every_cell_sorts(cell: Cell, order: str) -> None:
    assert cell.order == order


def test_a_pool_that_others_are_drawn_from_is_no_item() -> None:
    pool = {
        "member": "",
        "seed": 0,
        "insertion": "canaries",
        "item": "pool/rare",
        "group": ASIDE,
        "dose": 0,
        "text": "",
    }
    study = dataclasses.replace(SMALL, items=pa.concat_tables([SMALL.items, pa.Table.from_pylist([pool], ITEMS)]))
    told = [dict(facts(each, analyse(each, resamples=0)))["items"] for each in (SMALL, study)]
    assert told == ["60", "60"]


@pytest.mark.parametrize(("most", "shown", "said"), [(40, 6, False), (3, 3, True)])
def test_of_what_was_not_planted_the_whole_comes_first_and_the_rest_is_counted(
    analysis: Analysis, most: int, shown: int, said: bool
) -> None:
    table = side_effect_table(analysis, most)
    assert table is not None
    assert [row[0].text for row in table.rows][:2] == ["perplexity: all domains"] * 2
    assert len(table.rows) == shown
    assert table.caption.startswith("3 of 6 rows; effects.csv beside the page has the others.") is said
