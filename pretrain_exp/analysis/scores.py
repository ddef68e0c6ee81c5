"""The item table as vectors: a long table of results in, one score per item for each run and metric out.

    series  (evaluation, task, metric)      what is measured
    unit    (member, seed)                  one treated run, its control and its placebo
    scores.get(series, unit, arm, step)     -> (items,) float, NaN where the item was not scored

Where a unit has no control of its own, the control that stands for it is the one of its seed without a member, or the
only control there is: arms that agree in everything are trained once. That of another variant is never lent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import Metric, metric, metric_rank

Vector = NDArray[np.float64]
ASIDE = "pool"  # the group of items that say where others were drawn from: they are not scored
REMOVED = "removed"  # texts that the control reads and the treated run does not: no holdout, whatever their dose
MAIN = ("", REMOVED)  # groups that stand for an insertion


class Series(NamedTuple):
    evaluation: str
    task: str
    metric: str


class Unit(NamedTuple):
    member: str
    seed: int


def in_order(units: Iterable[Unit]) -> list[Unit]:
    """By member, numbers in it by their size ("r=4" before "r=16"), then by seed."""

    def key(unit: Unit) -> tuple[list[tuple[float, str]], int]:
        parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", unit.member)
        return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)], unit.seed

    return sorted(units, key=key)


def control_of(unit: Unit, controls: Sequence[Unit]) -> Unit | None:
    """Of these control runs the one that stands for a unit's: see the module."""
    alone = controls[0] if len(controls) == 1 and controls[0].member in ("", unit.member) else None
    return next((own for own in (unit, Unit("", unit.seed)) if own in controls), alone)


@dataclass
class Scores:
    """See the module. items: vocabulary of item ids; invalid: scores that were not finite, by series.

    loops: insertions whose doses are means (loops.py).
    """

    items: NDArray[np.str_]
    vectors: dict[tuple[Series, str, Unit, int], Vector]
    binary: dict[Series, bool]
    invalid: dict[Series, int]
    loops: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        steps: dict[tuple[Series, str, Unit], set[int]] = {}
        units: dict[str, set[Unit]] = {}
        for series, arm, unit, step in self.vectors:
            steps.setdefault((series, arm, unit), set()).add(step)
            units.setdefault(arm, set()).add(unit)
        self._steps = {key: sorted(found) for key, found in steps.items()}
        self._units = {arm: in_order(found) for arm, found in units.items()}

    @property
    def series(self) -> list[Series]:
        return sorted(self.binary, key=lambda s: (s.evaluation, s.task, metric_rank(s.metric)))

    def right_or_wrong(self, name: str) -> bool:
        """Whether every score of the metric in the whole study is 0 or 1."""
        found = [binary for series, binary in self.binary.items() if series.metric == name]
        return bool(found) and all(found)

    def metric(self, name: str) -> Metric:
        """How numbers of the metric are written: one way in the whole study, as points only if it is right or wrong."""
        return metric(name, binary=self.right_or_wrong(name))

    def metric_of(self, row: Estimate) -> Metric:
        """The metric of a row, in the words for the doses of its insertion."""
        return replace(self.metric(row.metric), about="about " if row.insertion in self.loops else "")

    def units(self, arm: str) -> list[Unit]:
        return self._units.get(arm, [])

    def steps(self, series: Series, unit: Unit, arm: str = "treated") -> list[int]:
        return self._steps.get((series, arm, unit), [])

    def run_of(self, arm: str, unit: Unit) -> Unit | None:
        """The run that is this unit's arm: its own, else a shared control; None when there is none."""
        units = self.units(arm)
        if arm == "control":
            return control_of(unit, units)
        return unit if unit in units else None

    @cached_property
    def originals(self) -> dict[Unit, Unit]:
        """Control run -> the first with the very same scores: one training may stand under several seeds, variants."""
        scores: dict[Unit, dict[tuple[Series, int], Vector]] = {}
        for (series, arm, unit, step), vector in self.vectors.items():
            if arm == "control":
                scores.setdefault(unit, {})[series, step] = vector
        found: dict[Unit, Unit] = {}
        for unit in self.units("control"):
            same = (other for other in found.values() if _equal(scores[unit], scores[other]))
            found[unit] = next(same, unit)
        return found

    def at_several_steps(self) -> set[Series]:
        return {series for (series, _, _), steps in self._steps.items() if len(steps) > 1}

    def get(self, series: Series, unit: Unit, arm: str, step: int) -> Vector | None:
        run = self.run_of(arm, unit)
        return None if run is None else self.vectors.get((series, arm, run, step))


def _equal(first: Mapping[tuple[Series, int], Vector], second: Mapping[tuple[Series, int], Vector]) -> bool:
    """Whether two runs agree in everything that was scored of both, the last step of each among it."""
    both = first.keys() & second.keys()
    last = max(step for _, step in first.keys() | second.keys())
    return any(step == last for _, step in both) and all(
        np.array_equal(first[key], second[key], equal_nan=True) for key in both
    )


def read_scores(results: pa.Table, loops: frozenset[str] = frozenset()) -> Scores:
    """Raises ValueError when one item has two values of one metric in one run at one step."""
    codes, names = {}, {}
    for column in ("evaluation", "task", "item", "metric", "arm", "member"):
        encoded = results[column].combine_chunks().dictionary_encode()
        codes[column] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        names[column] = encoded.dictionary.to_pylist()
    for column in ("seed", "step"):
        values, codes[column] = np.unique(results[column].to_numpy(), return_inverse=True)
        names[column] = values.tolist()
    value = results["value"].to_numpy()
    keys = ("evaluation", "task", "metric", "arm", "member", "seed", "step")
    block = np.zeros(len(value), np.int64)
    for column in keys:
        block = block * max(1, len(names[column])) + codes[column]
    order = np.lexsort((codes["item"], block))
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))

    vocabulary = np.asarray(names["item"], dtype=str)
    vectors: dict[tuple[Series, str, Unit, int], Vector] = {}
    binary: dict[Series, bool] = {}
    invalid: dict[Series, int] = {}
    for start, stop in zip(starts, [*starts, len(order)][1:], strict=True):
        rows = order[start:stop]
        evaluation, task, metric, arm, member, seed, step = (names[column][codes[column][rows[0]]] for column in keys)
        series, unit, item = Series(evaluation, task, metric), Unit(member, seed), codes["item"][rows]
        twice = item[1:][np.diff(item) == 0]
        if len(twice):
            raise ValueError(
                f"results: item {str(vocabulary[twice[0]])!r} has two values of {'/'.join(series)} "
                f"in {arm}, member {member!r}, seed {seed}, step {step}"
            )
        vector = np.full(len(vocabulary), np.nan)
        vector[item] = np.where(np.isfinite(value[rows]), value[rows], np.nan)
        vectors[series, arm, unit, step] = vector
        invalid[series] = invalid.get(series, 0) + int((~np.isfinite(value[rows])).sum())
        finite = vector[np.isfinite(vector)]
        binary[series] = binary.get(series, True) and bool(np.isin(finite, (0.0, 1.0)).all())
    return Scores(vocabulary, vectors, binary, invalid, loops)


@dataclass
class Doses:
    """What each planted item was given. dose, group: (unit, insertion) -> (items,); NaN and "" where not planted."""

    dose: dict[tuple[Unit, str], Vector]
    group: dict[tuple[Unit, str], NDArray[np.str_]]
    unscored: dict[str, tuple[int, int]]  # insertion -> of the items that ask something, how many no evaluation scored
    shared: int  # items that belong to two insertions of one unit

    @property
    def insertions(self) -> list[str]:
        return sorted({insertion for _, insertion in self.dose})

    @property
    def units(self) -> list[Unit]:
        """In the order of the plans, which is that of the sweep."""
        return list(dict.fromkeys(unit for unit, _ in self.dose))

    def of(self, unit: Unit, insertion: str) -> list[int]:
        vector = self.dose.get((unit, insertion))
        return [] if vector is None else [int(d) for d in np.unique(vector[~np.isnan(vector)])]


def read_doses(items: pa.Table, vocabulary: NDArray[np.str_]) -> Doses:
    """Joins the plan's items to the vocabulary of the scores. Raises ValueError for an item with two doses."""
    index = {name: i for i, name in enumerate(vocabulary.tolist())}
    dose: dict[tuple[Unit, str], Vector] = {}
    group: dict[tuple[Unit, str], NDArray[np.str_]] = {}
    seen: dict[tuple[Unit, str], set[str]] = {}
    shared: set[str] = set()
    columns = [items[c].to_pylist() for c in ("member", "seed", "insertion", "item", "group", "dose")]
    width = max((len(g) for g in columns[4]), default=1)
    for member, seed, insertion, item, item_group, item_dose in zip(*columns, strict=True):
        key = Unit(member, seed), insertion
        if item in seen.setdefault(key, set()):
            raise ValueError(f"items: {item!r} is twice in insertion {insertion!r}, member {member!r}, seed {seed}")
        seen[key].add(item)
        if key not in dose:
            dose[key] = np.full(len(vocabulary), np.nan)
            group[key] = np.full(len(vocabulary), "", dtype=f"<U{max(1, width)}")
        if item not in index:
            continue
        dose[key][index[item]] = item_dose
        group[key][index[item]] = item_group
    for unit, insertion in seen:
        for other_unit, other in seen:
            if other_unit == unit and other > insertion:
                shared |= seen[unit, insertion] & seen[other_unit, other]
    return Doses(dose, group, _unscored(items, index), len(shared))


def _unscored(items: pa.Table, scored: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Of an insertion with probes these are to be scored, of any other all items; pools are only drawn from."""
    probe = items["probe"].to_pylist() if "probe" in items.column_names else [False] * len(items)
    asks: dict[str, dict[bool, set[str]]] = {}
    columns = [items[name].to_pylist() for name in ("insertion", "item", "group")]
    for insertion, item, group, asked in zip(*columns, probe, strict=True):
        if group != ASIDE:
            asks.setdefault(insertion, {}).setdefault(bool(asked), set()).add(item)
    found = {}
    for insertion, each in asks.items():
        wanted = each.get(True) or each[False]
        if missing := sum(item not in scored for item in wanted):
            found[insertion] = missing, len(wanted)
    return found
