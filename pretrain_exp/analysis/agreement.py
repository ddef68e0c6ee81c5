"""Whether one scale tells what another would: effects of the variants of `model` in, agreement of their orders out.

    conditions      A     B  of an evaluation and metric          Spearman: of the ranks of A and B
    (task, dose 1)  0.10  0.3                                     decisions: of all pairs of conditions, the share
    (task, dose 4)  0.30  0.2                                     whose order is the same in A and B
    (task, dose 16) 0.90  0.8

A condition is a task, an insertion and a dose (the holdout is dose 0); its effect is treated − control. Conditions of
one run share its chance, so no interval is computed from them: the same is given for each seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from pretrain_exp.analysis.design import parts_of
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.scores import MAIN

FEWEST = 3  # conditions: with two of them every order is the same or the reverse
FEW = f"fewer than {FEWEST} conditions"
ALL_EQUAL = "no variance: all effects of a variant are equal"
_DIGITS = 12  # of the largest effect: what differs by less does so by rounding

Condition = tuple[str, str, str, int]  # insertion, task, group, dose


@dataclass(frozen=True)
class Agreement:
    """first, second: variants. seed: None for means over all seeds, else that seed alone; seeds: how many there are.

    n: conditions that both have. spearman: NaN, and why in `flag`, where it cannot be said. pairs: of conditions, less
    the `tied` ones that are equal in both; same: of these in the same order in both; accuracy: same / pairs. For fewer
    than three conditions nothing is counted.
    """

    evaluation: str
    metric: str
    first: str
    second: str
    seed: int | None
    seeds: int
    n: int
    spearman: float
    pairs: int
    same: int
    tied: int
    accuracy: float
    flag: str = ""


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation (Spearman 1904) of (n,) and (n,); equal values share their mean rank.

    NaN for fewer than three values, or where all of one side are equal.
    """
    x, y = (rankdata(_settled(values)) for values in (first, second))
    if len(x) != len(y):
        raise ValueError(f"spearman needs as many values on both sides, got {len(x)} and {len(y)}")
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def decisions(first: ArrayLike, second: ArrayLike) -> tuple[int, int, int]:
    """(same, pairs, tied) over all pairs of n conditions; same / pairs is the decision accuracy of DataDecide.

    Magnusson et al. 2025: the share of pairs of which the small scale names the same winner as the large one. A pair
    that is equal in both decides nothing: it is `tied`, and no part of `pairs`. One equal in one only is not the same.
    """
    x, y = _settled(first), _settled(second)
    i, j = np.triu_indices(len(x), k=1)
    a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    tied = (a == 0) & (b == 0)
    return int(((a == b) & ~tied).sum()), int((~tied).sum()), int(tied.sum())


def agreements(estimates: Sequence[Estimate]) -> list[Agreement]:
    """For every two variants that differ in `model` alone: all seeds together, then each where there are several."""
    rows = [
        row for row in estimates
        if row.contrast == "treated_vs_control" and row.dose is not None and row.group in MAIN
        and row.scope in ("run", "seeds") and not math.isnan(row.estimate)
    ]  # fmt: skip
    found = []
    for evaluation, metric in dict.fromkeys((row.evaluation, row.metric) for row in rows):
        mine = [row for row in rows if (row.evaluation, row.metric) == (evaluation, metric)]
        for first, second in _scales(list(dict.fromkeys(row.panel for row in mine))):
            one, other = ([row for row in mine if row.panel == panel] for panel in (first, second))
            seeds = sorted({r.seed for r in one if r.seed is not None} & {r.seed for r in other if r.seed is not None})
            for seed in (None, *(seeds if len(seeds) > 1 else ())):
                place = (evaluation, metric, first, second, seed, len(seeds))
                found.append(_agreement(place, _effects(one, seed), _effects(other, seed)))
    return found


def _agreement(
    place: tuple[str, str, str, str, int | None, int], one: Mapping[Condition, float], other: Mapping[Condition, float]
) -> Agreement:
    both = [condition for condition in one if condition in other]
    x, y = ([effects[condition] for condition in both] for effects in (one, other))
    if len(both) < FEWEST:
        return Agreement(*place, len(both), math.nan, 0, 0, 0, math.nan, FEW)
    rho, (same, pairs, tied) = spearman(x, y), decisions(x, y)
    return Agreement(
        *place, len(both), rho, pairs, same, tied, same / pairs if pairs else math.nan,
        ALL_EQUAL if math.isnan(rho) else "",
    )  # fmt: skip


def _effects(rows: Sequence[Estimate], seed: int | None) -> dict[Condition, float]:
    """Of one seed, or over seeds; of a condition that has one run only, that run's."""
    chosen = [row for row in rows if row.seed == seed or seed is None]
    chosen.sort(key=lambda row: row.scope == "seeds")  # last, so that it stands
    return {(row.insertion, row.task, row.group, row.dose or 0): row.estimate for row in chosen}


def _scales(panels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every two of these variants whose labels differ in the value of `model`, and in nothing else."""
    for first, second in combinations(panels, 2):
        one, other = (parts_of(panel) for panel in (first, second))
        changed = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
        if len(one) == len(other) and len(changed) == 1 and all(part.startswith("model=") for part in changed[0]):
            yield first, second


def _settled(values: ArrayLike) -> NDArray[np.float64]:
    """Without differences that are rounding, so that ties are ties."""
    x = np.asarray(values, float)
    size = float(np.abs(x).max(initial=0.0))
    return np.round(x / size, _DIGITS) if size > 0 else x
