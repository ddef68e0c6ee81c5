"""Dependence between experiments: what training on one alone does to the outcome of each, all against the control.

    D[i, j] = (outcome j after experiment i alone - outcome j of the control) / its standard error

The diagonal is the effect of each experiment; off the diagonal the null is that experiment i does not reach outcome j,
with Benjamini-Hochberg over all K (K - 1) cells. The row of all experiments at once shows whether they interfere.
Continual pretraining dependence testing, after Bordt and colleagues (2025), with paired tests and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.multiplicity import benjamini_hochberg

ALL = "all"
ONE_SEED = "one seed: the interval is over {counted}"


@dataclass(frozen=True)
class Cell:
    """One cell. n: items or facts a seed; d: estimate over its error; p_adjusted: over those off the diagonal."""

    treatment: str
    outcome: str
    estimate: float
    low: float
    high: float
    d: float
    p: float
    p_adjusted: float
    n: int
    seeds: int
    method: str
    flag: str = ""

    @property
    def diagonal(self) -> bool:
        return self.treatment == self.outcome


def dependence(
    differences: Mapping[tuple[str, str], Sequence[ArrayLike]],
    counted: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> list[Cell]:
    """differences: (treatment, outcome) -> for each seed the per-item differences to that seed's control, (items,).

    counted: outcome -> what its differences are of, "facts" or, if it is not there, "items".

    Two seeds or more: t over seed means, the run is the unit. One seed: paired t over items, flagged.
    """
    cells = [
        _cell(key, [np.asarray(each, float) for each in seeds], (counted or {}).get(key[1], "items"), level)
        for key, seeds in differences.items()
    ]
    off = [i for i, cell in enumerate(cells) if not cell.diagonal and cell.treatment != ALL]
    adjusted = benjamini_hochberg([cells[i].p for i in off])
    for i, p in zip(off, adjusted.tolist(), strict=True):
        cells[i] = replace(cells[i], p_adjusted=p)
    return cells


def noise_of_controls(controls: Mapping[str, Sequence[ArrayLike]]) -> dict[str, float]:
    """outcome -> standard deviation of control means between seeds: what two runs without any edit differ by.

    controls: outcome -> per-item scores of each seed's control; NaN for fewer than two seeds.
    """
    out = {}
    for outcome, seeds in controls.items():
        means = [float(np.mean(np.asarray(each, float))) for each in seeds]
        out[outcome] = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
    return out


def _cell(key: tuple[str, str], seeds: list[np.ndarray], counted: str, level: float) -> Cell:
    if not seeds or any(not len(each) for each in seeds):
        raise ValueError(f"no scores of outcome {key[1]!r} under {key[0]!r}")
    over_seeds = len(seeds) > 1
    values = np.array([each.mean() for each in seeds]) if over_seeds else seeds[0]
    interval = t_interval(values, level)
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    mean = float(values.mean())
    return Cell(
        treatment=key[0],
        outcome=key[1],
        estimate=mean,
        low=float(interval.low),
        high=float(interval.high),
        d=mean / error if error > 0 else math.nan,
        p=float(interval.p),
        p_adjusted=math.nan,
        n=round(float(np.mean([len(each) for each in seeds]))),
        seeds=len(seeds),
        method=f"t over {len(seeds)} seeds" if over_seeds else f"paired t over {counted}",
        flag="no variance" if interval.degenerate else "" if over_seeds else ONE_SEED.format(counted=counted),
    )
