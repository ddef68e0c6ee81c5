"""Mean scores by arm and dose, for tables and plots: a design in, points with intervals out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.proportions import wilson
from pretrain_exp.analysis.scores import Series
from pretrain_exp.analysis.seeds import over_seeds
from pretrain_exp.analysis.study import ARMS


@dataclass(frozen=True, kw_only=True)
class Level(Place):
    """Mean score of the items at one dose in one arm. seed None: the mean over seeds, with a t interval over them.

    n: of what `counted` says, items or facts.
    """

    arm: str
    seed: int | None
    step: int | None
    n: int
    counted: str
    mean: float
    low: float
    high: float
    method: str


def levels(design: Design) -> list[Level]:
    """At the last step, every arm, dose and seed, and the mean over seeds where there are several."""
    return [
        row
        for panel, insertion, series in design.measured()
        for cell in design.cells(panel, insertion, series)
        for arm in (ARMS if cell.main else ())
        for row in _cell(design, panel, series, cell, arm, None)
    ]


def trajectories(design: Design) -> list[Level]:
    """The same at every step at which the arms were scored; empty where that is one step only."""
    rows: list[Level] = []
    for panel, insertion, series in design.measured():
        steps = sorted({step for unit in panel.units for step in design.scores.steps(series, unit)})
        for cell in design.cells(panel, insertion, series) if len(steps) > 1 else []:
            for step in steps if cell.main else []:
                for arm in ARMS:
                    rows += _cell(design, panel, series, cell, arm, step)
    return rows


def _cell(design: Design, panel: Panel, series: Series, cell: Cell, arm: str, step: int | None) -> list[Level]:
    """One row a seed (over variants that share the dose: their mean), and one over seeds."""
    rows: list[Level] = []
    counted = design.counted(series, cell.insertion)
    shown = step if step is not None else design.template("treated_vs_control", panel, series, cell).step
    for seed in panel.seeds:
        units = design.of_runs(panel.of_seed(seed), arm, cell)
        runs = [design.values(series, unit, arm, cell, step) for unit in units]
        runs = [run for run in runs if len(run)]
        if not runs:
            continue
        mean, n = float(np.mean([run.mean() for run in runs])), sum(len(run) for run in runs)
        low, high, method = float("nan"), float("nan"), "mean over variants"
        if len(runs) == 1 and design.binary(series, cell.insertion):
            low, high = (float(bound) for bound in wilson(runs[0].sum(), n, design.level))
            method = "Wilson interval over items"
        elif len(runs) == 1:
            interval = t_interval(runs[0], design.level)
            low, high, method = float(interval.low), float(interval.high), f"t interval over {counted}"
        rows.append(_level(series, panel, cell, arm, seed, shown, n, counted, mean, low, high, method))
    if len(rows) > 1:
        over = over_seeds([row.mean for row in rows], design.level)
        n, low, high = sum(row.n for row in rows), float(over.low), float(over.high)
        method = f"t interval over {len(rows)} seeds"
        rows.append(_level(series, panel, cell, arm, None, shown, n, counted, float(over.mean), low, high, method))
    return rows


def _level(
    series: Series, panel: Panel, cell: Cell, arm: str, seed: int | None, step: int | None,
    n: int, counted: str, mean: float, low: float, high: float, method: str,
) -> Level:  # fmt: skip
    return Level(
        evaluation=series.evaluation, task=series.task, metric=series.metric, panel=panel.label,
        insertion=cell.insertion, group=cell.group, arm=arm, dose=cell.dose, seed=seed, step=step,
        n=n, counted=counted, mean=mean, low=low, high=high, method=method,
    )  # fmt: skip
