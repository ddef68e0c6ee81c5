"""Scores joined to doses: which scores of which runs stand for an item group at a dose.

    scores (item x arm x seed x step)  +  doses (item x seed)   -->   one value a unit of observation, aligned by item

Panels are what is analysed as one (a variant of the sweep, or those together that differ only in dose), cells are the
items of an insertion at a dose. Probes of one fact are answered from one fact, so they are no independent items: where
a cell holds several of a fact, its score is their mean, and facts are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain_exp.analysis.contrasts import FACTS, ITEMS, Pair, Vector, mean_over_runs
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import SIZES, shown_metrics
from pretrain_exp.analysis.scores import MAIN, REMOVED, Doses, Scores, Series, Unit
from pretrain_exp.items.facts import fact_of

_DOSE = "repetitions"  # the part of a variant's label that says its dose
MOST_GROUPS = 12  # of items that are compared apart; more are places, not properties


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

    @property
    def main(self) -> bool:
        """Whether it stands for the insertion at this dose: all its items or, where texts were removed, these."""
        return self.group in MAIN


class Design:
    """Scores joined to doses: hands out aligned scores of a cell. level: of intervals; rng_seed: of the resampling."""

    def __init__(self, scores: Scores, doses: Doses, level: float = 0.95, resamples: int = 2000, rng_seed: int = 0):
        self.scores, self.doses = scores, doses
        self.level, self.resamples, self.rng_seed = level, resamples, rng_seed
        self.panels = panels_of(doses, scores.units("treated"))
        self.facts, self._fact = np.unique([fact_of(item) for item in scores.items.tolist()], return_inverse=True)
        self._counted: dict[tuple[Series, str], str] = {}
        self._cells: dict[tuple[str, str, Series], list[Cell]] = {}

    def measured(self) -> Iterator[tuple[Panel, str, Series]]:
        """Every panel, insertion and what was measured on its items."""
        for panel in self.panels:
            for insertion in self.doses.insertions:
                for series in self.series(panel, insertion):
                    yield panel, insertion, series

    def shown(self, of: Callable[[Series], bool] = lambda series: True) -> Iterator[tuple[Panel, str, Series]]:
        """Of `measured`, and of what `of` takes, the metrics of each insertion that are shown first (metrics.py)."""
        for panel in self.panels:
            for insertion in self.doses.insertions:
                found = [series for series in self.series(panel, insertion) if of(series)]
                names = shown_metrics(series.metric for series in found)
                yield from ((panel, insertion, series) for series in found if series.metric in names)

    def cells(self, panel: Panel, insertion: str, series: Series) -> list[Cell]:
        """Doses in rising order; item groups apart when a dose has several of those that the series scores.

        Where texts were removed there are only groups: what was taken away and what was kept share nothing.
        """
        key = panel.label, insertion, series
        if key not in self._cells:
            self._cells[key] = self._find_cells(panel, insertion, series)
        return self._cells[key]

    def _find_cells(self, panel: Panel, insertion: str, series: Series) -> list[Cell]:
        pairs: set[tuple[str, int]] = set()
        for unit in panel.units:
            vector, dose = self.at_end(series, unit, "treated"), self.doses.dose.get((unit, insertion))
            if vector is not None and dose is not None:
                there = ~np.isnan(vector) & ~np.isnan(dose)
                for d in np.unique(dose[there]).tolist():
                    groups = np.unique(self.doses.group[unit, insertion][there & (dose == d)])
                    pairs |= {(group, int(d)) for group in groups.tolist()}
        doses = sorted({d for _, d in pairs})
        if any(group == REMOVED for group, _ in pairs):
            return [Cell(insertion, g, d) for g, d in sorted(pairs) if g]
        crossed = len({group for group, _ in pairs}) <= MOST_GROUPS and any(
            sum(d == dose for _, d in pairs) > 1 for dose in doses
        )
        cells = [Cell(insertion, "", dose) for dose in doses]
        return cells + ([Cell(insertion, g, d) for g, d in sorted(pairs) if g] if crossed else [])

    def ungrouped(self, panel: Panel, insertion: str, series: Series) -> int:
        """How many scored items of a run have no group at a dose where groups are apart: no group's cell holds them."""
        doses = {cell.dose for cell in self.cells(panel, insertion, series) if cell.group}
        most = 0
        for unit in panel.units if doses else ():
            vector, group = self.at_end(series, unit, "treated"), self.doses.group.get((unit, insertion))
            if vector is not None and group is not None:
                apart = np.isin(self.doses.dose[unit, insertion], list(doses)) & ~np.isnan(vector)
                most = max(most, int((apart & (group == "")).sum()))
        return most

    def counted(self, series: Series, insertion: str) -> str:
        """What is independent here: `facts` where several items of one fact are scored, else `items`."""
        if (series, insertion) not in self._counted:
            most = 0
            for (unit, planted), dose in self.doses.dose.items():
                vector = self.at_end(series, unit, "treated") if planted == insertion else None
                if vector is not None:
                    of_fact = np.bincount(self._fact[~np.isnan(vector) & ~np.isnan(dose)], minlength=1)
                    most = max(most, int(of_fact.max()))
            self._counted[series, insertion] = FACTS if most > 1 else ITEMS
        return self._counted[series, insertion]

    def binary(self, series: Series, insertion: str) -> bool:
        """Whether each unit of observation is right or wrong; the mean of a fact's probes is neither."""
        return self.scores.binary[series] and self.counted(series, insertion) == ITEMS

    def by_fact(self, pair: Pair) -> Pair:
        """Means over the items of each fact; `item` is then an index into `facts`."""
        fact, where, count = np.unique(self._fact[pair.item], return_inverse=True, return_counts=True)
        first, second = (np.bincount(where, side) / count for side in (pair.first, pair.second))
        return Pair(pair.seed, fact, first, second, pair.runs, FACTS)

    def fact_codes(self, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which fact each of these items belongs to; an item of no fact is one of its own."""
        codes: NDArray[np.int64] = self._fact[item]
        return codes

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
        """Scores of the cell's items, or means over their facts; those not scored are left out."""
        step = self.last_step(series, unit) if step is None else step
        vector = None if step is None else self.scores.get(series, unit, arm, step)
        if vector is None:
            return np.empty(0)
        chosen = np.flatnonzero(self.mask(unit, cell) & ~np.isnan(vector))
        if not len(chosen) or self.counted(series, cell.insertion) == ITEMS:
            return vector[chosen]
        return self.by_fact(Pair(unit.seed, chosen, vector[chosen], vector[chosen])).first

    def of_runs(self, units: Sequence[Unit], arm: str, cell: Cell) -> list[Unit]:
        """One of these units for each run that is their arm (variants may share a control) and each choice of items."""
        found: dict[tuple[Unit, bytes], Unit] = {}
        runs = {unit: run for unit in units if (run := self.scores.run_of(arm, unit)) is not None}
        for unit, run in runs.items() if len(runs) > 1 else ():
            original = self.scores.originals[run] if arm == "control" else run
            found.setdefault((original, self.mask(unit, cell).tobytes()), unit)
        return list(found.values() or runs)

    def pair(self, series: Series, unit: Unit, arms: tuple[str, str], cell: Cell | None) -> Pair:
        """Items, or means over facts, in both arms at the last step; cell None: items that no insertion holds."""
        pair = self.each(series, unit, arms, cell)
        if cell is None or not len(pair.item) or self.counted(series, cell.insertion) == ITEMS:
            return pair
        return self.by_fact(pair)

    def each(self, series: Series, unit: Unit, arms: tuple[str, str], cell: Cell | None) -> Pair:
        """The single items that were scored in both arms at the last step."""
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
            counted=self.counted(series, cell.insertion) if cell else ITEMS,
            estimate=float("nan"),
            level=self.level,
        )


def panels_of(doses: Doses, treated: Sequence[Unit]) -> list[Panel]:
    """Variants whose labels differ in nothing but `repetitions` share a panel where no two hold the same non-zero dose.

    Any other variant has a panel of its own. The label of a shared panel is what its variants have in common. Panels
    are in the order of the sweep, which may be one of sizes that no label tells.
    """
    found = dict.fromkeys((*doses.units, *treated))
    rank = {member: i for i, member in enumerate(dict.fromkeys(unit.member for unit in found))}
    units = sorted(found, key=lambda unit: (rank[unit.member], unit.seed))
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


def parts_of(label: str) -> list[str]:
    """["lr=1e-3", "repetitions=4"] of "lr=1e-3, repetitions=4". A comma in a value, as in "[0, 4]", parts nothing."""
    return re.split(r", (?=[\w@/.]+=)", label)


def _but_dose(label: str) -> tuple[str, ...]:
    """("lr=1e-3",) of "lr=1e-3, repetitions=4"."""
    return tuple(part for part in parts_of(label) if part.partition("=")[0].rpartition(".")[2] != _DOSE)


def _doses_differ(doses: Doses, members: Sequence[str]) -> bool:
    held: dict[int, set[str]] = {}
    for unit in doses.units:
        for insertion in doses.insertions if unit.member in members else ():
            for dose in doses.of(unit, insertion):
                held.setdefault(dose, set()).add(unit.member)
    return all(len(who) == 1 for dose, who in held.items() if dose)
