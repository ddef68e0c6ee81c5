"""Planted noise looked for: inner products by arm and dose in, tests against N(0, 1) out.

planted noise in the treated run     the question                          (alternative: shifted below 0)
planted noise in the control         never trained on: the null must hold
fresh noise in either run            never planted: the null must hold
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pretrain_exp.analysis.contrasts import NO_VARIANCE
from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.gaussian import WatermarkTest, watermark_test
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.scores import Series, Unit
from pretrain_exp.analysis.seeds import over_seeds
from pretrain_exp.analysis.study import ARMS

PLANTED, FRESH = "watermark", "watermark_fresh"
SHARED = "sequences that variants share: each once, in the first of them"


@dataclass(frozen=True, kw_only=True)
class Watermarked(WatermarkTest, Place):
    """The tests of gaussian.py on one run's inner products. seed None: the mean shift over seeds (t), no tests.

    noise: "planted" or "fresh". null_must_hold: whether the null must hold here whatever the model does.
    """

    noise: str
    arm: str
    null_must_hold: bool
    seed: int | None
    method: str
    flag: str = ""


def watermarks(design: Design) -> list[Watermarked]:
    """Every arm, dose and seed of an insertion whose noise was looked for, and over seeds."""
    rows: list[Watermarked] = []
    for panel, insertion, series in design.measured():
        for cell in design.cells(panel, insertion, series) if series.metric in (PLANTED, FRESH) else ():
            for arm in ARMS if not cell.group else ():
                found = list(_within(design, panel, series, cell, arm))
                rows += [*found, *_over_seeds(found, design.level)]
    return rows


def _within(design: Design, panel: Panel, series: Series, cell: Cell, arm: str) -> Iterator[Watermarked]:
    for seed in panel.seeds:
        units = design.of_runs(panel.of_seed(seed), arm, cell)
        values, shared = _once(design, units, series, cell, arm)
        if not len(values):
            continue
        test = watermark_test(values)
        reason = "one sequence only" if test.n == 1 else NO_VARIANCE if np.isnan(test.low) else ""
        yield Watermarked(
            panel=panel.label, insertion=cell.insertion, **series._asdict(),
            noise="planted" if series.metric == PLANTED else "fresh", arm=arm, dose=cell.dose,
            null_must_hold=arm == "control" or series.metric == FRESH or cell.dose == 0, seed=seed, **asdict(test),
            method="t interval over sequences",
            flag="; ".join(filter(None, (reason, SHARED if shared else ""))),
        )  # fmt: skip


def _once(
    design: Design, units: Sequence[Unit], series: Series, cell: Cell, arm: str
) -> tuple[NDArray[np.float64], bool]:
    """Each sequence in the first of these runs that scored it, for its values in several are not independent; whether
    any was scored in another too."""
    found, shared = np.full(len(design.scores.items), np.nan), False
    for unit in units:
        step = design.last_step(series, unit)
        vector = None if step is None else design.scores.get(series, unit, arm, step)
        if vector is not None:
            mine = design.mask(unit, cell) & ~np.isnan(vector)
            shared |= bool((mine & ~np.isnan(found)).any())
            found = np.where(mine & np.isnan(found), vector, found)
    return found[~np.isnan(found)], shared


def _over_seeds(rows: list[Watermarked], level: float) -> Iterator[Watermarked]:
    if len(rows) > 1:
        mean, tpr = (over_seeds(values, level) for values in ([r.mean for r in rows], [r.tpr for r in rows]))
        nan = float("nan")
        yield replace(
            rows[0], seed=None, n=sum(row.n for row in rows), mean=float(mean.mean), low=float(mean.low),
            high=float(mean.high), z_p=nan, ks_p=nan, tpr=float(tpr.mean), tpr_low=float(tpr.low),
            tpr_high=float(tpr.high), method=f"t interval over {len(rows)} seeds",
            flag=NO_VARIANCE if mean.degenerate else "",
        )  # fmt: skip
