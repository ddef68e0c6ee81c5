"""From scores and doses to effects: the story of one study.

scores (item x arm x seed x step)  +  doses (item x seed)
    for each panel (a variant of the sweep, or those together that differ only in dose)
    and each insertion, metric, item group and dose
        treated − control, placebo − control, treated − placebo      the same items, paired
        dose − holdout, and its difference between the arms          different items
    every one within each seed, then over seeds; Benjamini-Hochberg over (metric x group)
    treated − control also by a bootstrap, in the metrics that are shown first (metrics.py) and no others
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pretrain_exp.analysis.contrasts import Pair, Vector, independent_rows, mean_over_runs, paired_rows
from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.place import compared
from pretrain_exp.analysis.scores import Series

_ARMS_OF = {
    "treated_vs_control": ("treated", "control"),
    "placebo_vs_control": ("placebo", "control"),
    "treated_vs_placebo": ("treated", "placebo"),
}


def effects(design: Design) -> list[Estimate]:
    """Every comparison of the study, not yet adjusted for their number."""
    rows: list[Estimate] = []
    first = {(panel.label, insertion, series) for panel, insertion, series in design.shown()}
    for panel, insertion, series in design.measured():
        resamples = design.resamples if (panel.label, insertion, series) in first else 0
        for cell in design.cells(panel, insertion, series):
            rows += _paired(design, panel, series, cell, resamples)
            rows += _against_holdout(design, panel, series, cell)
    return rows + list(_between_members(design))


def _paired(design: Design, panel: Panel, series: Series, cell: Cell, resamples: int) -> Iterator[Estimate]:
    binary = design.binary(series, cell.insertion)
    for contrast, arms in _ARMS_OF.items():
        pairs = design.pairs(panel, series, arms, cell)
        own = resamples if contrast == "treated_vs_control" else 0
        template = design.template(contrast, panel, series, cell)
        yield from paired_rows(template, pairs, binary, own, design.rng_seed)


def _against_holdout(design: Design, panel: Panel, series: Series, cell: Cell) -> Iterator[Estimate]:
    if cell.dose == 0:
        return
    holdout = replace(cell, dose=0)
    gaps: list[tuple[int, Vector, Vector]] = []
    changes: list[tuple[int, Vector, Vector]] = []
    for unit in panel.units:
        at_dose, at_zero = (design.values(series, unit, "treated", c) for c in (cell, holdout))
        gaps.append((unit.seed, at_dose, at_zero))
        change, none = (design.pair(series, unit, ("treated", "control"), c).difference for c in (cell, holdout))
        changes.append((unit.seed, change, none))
    binary = design.binary(series, cell.insertion)
    yield from independent_rows(design.template("dose_vs_holdout", panel, series, cell), gaps, binary)
    template = design.template("difference_in_differences", panel, series, cell)
    yield from independent_rows(template, changes, False, "paired differences of ")


def _between_members(design: Design) -> Iterator[Estimate]:
    """Effect (treated − control) of a variant less that of one before it (place.py), on items of one dose in both."""
    panels = {panel.label: panel for panel in design.panels}
    for label, (first, other) in ((label, [panels[n] for n in pair]) for label, pair in compared([*panels]).items()):
        for insertion in design.doses.insertions:
            for series in design.series(other, insertion):
                for cell in design.cells(other, insertion, series):
                    pairs = [p for seed in other.seeds if (p := _member_pair(design, series, cell, first, other, seed))]
                    template = replace(design.template("member_vs_member", other, series, cell), panel=label)
                    yield from paired_rows(template, pairs, False, 0, design.rng_seed)


def _member_pair(design: Design, series: Series, cell: Cell, first: Panel, other: Panel, seed: int) -> Pair | None:
    sides = []
    for panel in (other, first):
        runs = [design.pair(series, unit, ("treated", "control"), cell) for unit in panel.of_seed(seed)]
        runs = [pair for pair in runs if len(pair.item)]
        if not runs:
            return None
        sides.append(mean_over_runs(runs))
    mine, reference = sides
    item, i, j = np.intersect1d(mine.item, reference.item, return_indices=True)
    return Pair(seed, item, mine.difference[i], reference.difference[j], counted=mine.counted)
