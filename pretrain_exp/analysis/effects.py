"""From scores and doses to effects: the story of one study.

scores (item x arm x seed x step)  +  doses (item x seed)
    for each panel (a variant of the sweep, or those together that differ only in dose)
    and each insertion, metric, item group and dose
        treated − control, placebo − control, treated − placebo      the same items, paired
        dose − holdout, and its difference between the arms          different items
    every one within each seed, then over seeds; Benjamini-Hochberg over (metric x group)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pretrain_exp.analysis.contrasts import Pair, Vector, independent_rows, mean_over_runs, paired_rows
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import HEADLINE, SIZES
from pretrain_exp.analysis.scores import Doses, Scores, Series, Unit, in_order

_DOSE = "repetitions"  # the part of a variant's label that says its dose
_ARMS_OF = {
    "treated_vs_control": ("treated", "control"),
    "placebo_vs_control": ("placebo", "control"),
    "treated_vs_placebo": ("treated", "placebo"),
}


@dataclass(frozen=True)
class Panel:
    """What is analysed as one: units that differ by seed alone, or by seed and dose. label: "" if it stands alone."""

    label: str
    units: tuple[Unit, ...]

    @property
    def seeds(self) -> list[int]:
        return sorted({unit.seed for unit in self.units})

    def of_seed(self, seed: int) -> list[Unit]:
        return [unit for unit in self.units if unit.seed == seed]


@dataclass(frozen=True)
class Cell:
    """Items of one insertion at one dose, optionally of one item group ("" = all)."""

    insertion: str
    group: str
    dose: int


class Design:
    """Scores joined to doses: hands out aligned scores of a cell. level: of intervals; rng_seed: of the resampling."""

    def __init__(self, scores: Scores, doses: Doses, level: float = 0.95, resamples: int = 2000, rng_seed: int = 0):
        self.scores, self.doses = scores, doses
        self.level, self.resamples, self.rng_seed = level, resamples, rng_seed
        self.panels = panels_of(doses, scores.units("treated"))

    def cells(self, panel: Panel, insertion: str) -> list[Cell]:
        """Doses in rising order; item groups apart when there are several that are not the doses themselves."""
        of_dose = sorted({dose for unit in panel.units for dose in self.doses.of(unit, insertion)})
        pairs = {
            (str(g), int(d))
            for unit in panel.units
            if (unit, insertion) in self.doses.dose
            for g, d in zip(self.doses.group[unit, insertion], self.doses.dose[unit, insertion], strict=True)
            if not np.isnan(d)
        }
        groups = sorted({g for g, _ in pairs})
        crossed = len(groups) > 1 and any(len({d for g, d in pairs if g == group}) > 1 for group in groups)
        cells = [Cell(insertion, "", dose) for dose in of_dose]
        return cells + ([Cell(insertion, g, d) for g, d in sorted(pairs)] if crossed else [])

    def series(self, panel: Panel, insertion: str) -> list[Series]:
        """What was measured on the insertion's items."""
        outcomes = [series for series in self.scores.series if series.metric not in SIZES]
        return [s for s in outcomes if any(self._planted(s, u, insertion) for u in panel.units)]

    def _planted(self, series: Series, unit: Unit, insertion: str) -> bool:
        vector, dose = self.at_end(series, unit, "treated"), self.doses.dose.get((unit, insertion))
        return vector is not None and dose is not None and bool((~np.isnan(vector) & ~np.isnan(dose)).any())

    def last_step(self, series: Series, unit: Unit) -> int | None:
        return max(self.scores.steps(series, unit), default=None)

    def at_end(self, series: Series, unit: Unit, arm: str) -> Vector | None:
        step = self.last_step(series, unit)
        return None if step is None else self.scores.get(series, unit, arm, step)

    def mask(self, unit: Unit, cell: Cell) -> NDArray[np.bool_]:
        dose = self.doses.dose.get((unit, cell.insertion))
        if dose is None:
            return np.zeros(len(self.scores.items), bool)
        chosen: NDArray[np.bool_] = dose == cell.dose
        return chosen & (self.doses.group[unit, cell.insertion] == cell.group) if cell.group else chosen

    def values(self, series: Series, unit: Unit, arm: str, cell: Cell, step: int | None = None) -> Vector:
        """Scores of the cell's items, in order of the items; those not scored are left out."""
        step = self.last_step(series, unit) if step is None else step
        vector = None if step is None else self.scores.get(series, unit, arm, step)
        if vector is None:
            return np.empty(0)
        chosen = vector[self.mask(unit, cell)]
        return chosen[~np.isnan(chosen)]

    def pair(self, series: Series, unit: Unit, arms: tuple[str, str], cell: Cell | None) -> Pair:
        """Items scored in both arms at the last step; cell None: items that no insertion planted or held out."""
        first, second = (self.at_end(series, unit, arm) for arm in arms)
        if first is None or second is None:
            return Pair(unit.seed, np.empty(0, np.int64), np.empty(0), np.empty(0))
        if cell is None:
            planted = [~np.isnan(d) for (u, _), d in self.doses.dose.items() if u == unit]
            chosen = ~np.any(planted, axis=0) if planted else np.ones(len(first), bool)
        else:
            chosen = self.mask(unit, cell)
        item = np.flatnonzero(chosen & ~np.isnan(first) & ~np.isnan(second))
        return Pair(unit.seed, item, first[item], second[item])

    def pairs(self, panel: Panel, series: Series, arms: tuple[str, str], cell: Cell | None) -> list[Pair]:
        """One pair a seed; where several variants hold the same dose, the mean over them."""
        by_seed = []
        for seed in panel.seeds:
            pairs = [p for unit in panel.of_seed(seed) if len((p := self.pair(series, unit, arms, cell)).item)]
            if pairs:
                by_seed.append(mean_over_runs(pairs))
        return by_seed

    def template(self, contrast: str, panel: Panel, series: Series, cell: Cell | None) -> Estimate:
        steps = {self.last_step(series, unit) for unit in panel.units} - {None}
        return Estimate(
            contrast=contrast,
            evaluation=series.evaluation,
            task=series.task,
            metric=series.metric,
            panel=panel.label,
            insertion=cell.insertion if cell else "",
            group=cell.group if cell else "",
            dose=cell.dose if cell else None,
            scope="run",
            step=steps.pop() if len(steps) == 1 else None,
            n=0,
            estimate=float("nan"),
            level=self.level,
        )


def panels_of(doses: Doses, treated: Sequence[Unit]) -> list[Panel]:
    """Variants whose labels differ in nothing but `repetitions` share a panel where no two hold the same non-zero dose.

    Any other variant has a panel of its own. The label of a shared panel is what its variants have in common.
    """
    units = in_order({*doses.units, *treated})
    alike: dict[tuple[str, ...], list[str]] = {}
    for member in dict.fromkeys(unit.member for unit in units):
        alike.setdefault(_but_dose(member), []).append(member)
    together: list[tuple[str, list[str]]] = []
    for rest, members in alike.items():
        if len(members) > 1 and _doses_differ(doses, members):
            together.append((", ".join(rest) or " / ".join(members), members))
        else:
            together += [(member, [member]) for member in members]
    if len(together) == 1:
        return [Panel("", tuple(units))]
    return [Panel(label, tuple(u for u in units if u.member in members)) for label, members in together]


def _but_dose(label: str) -> tuple[str, ...]:
    """("lr=1e-3",) of "lr=1e-3, repetitions=4". A comma inside a value, as in "[0, 4]", parts nothing."""
    parts = re.split(r", (?=[\w@/.]+=)", label)
    return tuple(part for part in parts if part.partition("=")[0] != _DOSE)


def _doses_differ(doses: Doses, members: Sequence[str]) -> bool:
    held: dict[int, set[str]] = {}
    for unit in doses.units:
        for insertion in doses.insertions if unit.member in members else ():
            for dose in doses.of(unit, insertion):
                held.setdefault(dose, set()).add(unit.member)
    return all(len(who) == 1 for dose, who in held.items() if dose)


def effects(design: Design) -> list[Estimate]:
    """Every comparison of the study, not yet adjusted for their number."""
    rows: list[Estimate] = []
    for panel in design.panels:
        for insertion in design.doses.insertions:
            for series in design.series(panel, insertion):
                cells = design.cells(panel, insertion)
                for cell in cells:
                    rows += _paired(design, panel, series, cell)
                    rows += _against_holdout(design, panel, series, cell)
    return rows + list(_between_members(design))


def _paired(design: Design, panel: Panel, series: Series, cell: Cell) -> Iterator[Estimate]:
    for contrast, arms in _ARMS_OF.items():
        pairs = design.pairs(panel, series, arms, cell)
        resamples = design.resamples if contrast == "treated_vs_control" and series.metric in HEADLINE else 0
        template = design.template(contrast, panel, series, cell)
        yield from paired_rows(template, pairs, design.scores.binary[series], resamples, design.rng_seed)


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
    yield from independent_rows(
        design.template("dose_vs_holdout", panel, series, cell), gaps, design.scores.binary[series]
    )
    template = design.template("difference_in_differences", panel, series, cell)
    yield from independent_rows(template, changes, False, "paired differences")


def _between_members(design: Design) -> Iterator[Estimate]:
    """Effect (treated − control) of each further variant less that of the first, on items of one dose in both."""
    for first, other in ((design.panels[0], panel) for panel in design.panels[1:]):
        label = f"{other.label} − {first.label}"
        for insertion in design.doses.insertions:
            for series in design.series(other, insertion):
                for cell in design.cells(other, insertion):
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
    return Pair(seed, item, mine.difference[i], reference.difference[j])
