"""How well a membership attack tells what was read from what was not: scores joined to doses in, rows out.

    members   items of a dose (and of a condition, where a dose has several)        others   items of dose 0

Three kinds of scores are separated: those of the treated run, those of its control (where nobody is a member: what the
items give away by themselves), and treated − control on the same item, which takes the difficulty of an item out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pretrain_exp.analysis.contrasts import NO_VARIANCE, Vector, flags_of_runs
from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.membership import Separation, separation
from pretrain_exp.analysis.scores import Series, Unit
from pretrain_exp.analysis.seeds import over_seeds

METRICS = ("neg_loss", "neg_zlib", "min_k", "min_k_pp", "reference")
FPRS = (0.001, 0.01)
MOST_RESAMPLES = 1000
MINUS = "treated − control"


@dataclass(frozen=True, kw_only=True)
class Separated:
    """One number of one attack. measure: "auc" or "tpr"; fpr: at which the TPR is taken, None for an AUC.

    scores: "treated", "control" or "treated − control". seed None: over seeds (t), the row to conclude from.
    group: the condition; "" is all items of the dose. members, others: how many in each seed, added over seeds.
    """

    panel: str
    insertion: str
    evaluation: str
    metric: str
    group: str
    dose: int
    scores: str
    measure: str
    fpr: float | None
    seed: int | None
    members: int
    others: int
    estimate: float
    low: float
    high: float
    method: str
    resampling_seed: int | None = None
    flag: str = ""


def separations(design: Design) -> list[Separated]:
    """Every attack, condition, dose and measure, within each seed and over seeds."""
    rows: list[Separated] = []
    for panel, insertion, series in design.measured():
        for cell in design.cells(panel, insertion, series) if series.metric in METRICS else ():
            for scores in ("treated", "control", MINUS) if cell.dose else ():
                found = list(_within(design, panel, series, cell, scores))
                rows += [*found, *_over_seeds(found, design.level)]
    return rows


def _within(design: Design, panel: Panel, series: Series, cell: Cell, scores: str) -> Iterator[Separated]:
    for unit in panel.units:  # one a seed holds the dose
        members = _scores(design, series, unit, cell, scores)
        others, flag = _scores(design, series, unit, replace(cell, dose=0), scores), ""
        if cell.group and not len(others):
            others = _scores(design, series, unit, Cell(cell.insertion, "", 0), scores)
            flag = "held against the holdout of all conditions"
        if len(members) and len(others):
            found = separation(members, others, FPRS, design.level, min(design.resamples, MOST_RESAMPLES), unit.seed)
            template = Separated(
                panel=panel.label, insertion=cell.insertion, evaluation=series.evaluation, metric=series.metric,
                group=cell.group, dose=cell.dose, scores=scores, measure="auc", fpr=None, seed=unit.seed,
                members=found.members, others=found.others, estimate=found.auc, low=found.low, high=found.high,
                method=_method(found, design.counted(series, cell.insertion)), resampling_seed=found.seed,
                flag=_flags(found.low, flag),
            )  # fmt: skip
            yield template
            for fpr, (tpr, low, high) in found.tpr.items():
                coarse = f"{len(others):,} others: the smallest rate above 0 is {1 / len(others):.1%}"
                notes = _flags(low, flag, coarse if fpr * len(others) < 1 else "")
                yield replace(template, measure="tpr", fpr=fpr, estimate=tpr, low=low, high=high, flag=notes)


def _scores(design: Design, series: Series, unit: Unit, cell: Cell, scores: str) -> Vector:
    if scores == MINUS:
        return design.pair(series, unit, ("treated", "control"), cell).difference
    return design.values(series, unit, scores, cell)


def _method(found: Separation, counted: str) -> str:
    if not found.resamples:
        return "none"
    return f"percentile bootstrap over {counted} ({found.resamples} resamples, members and others apart)"


def _flags(bound: float, *notes: str) -> str:
    """The notes, and that there is no interval where its lower bound is none."""
    return "; ".join(note for note in (*notes, "" if bound == bound else NO_VARIANCE) if note)


def _over_seeds(rows: list[Separated], level: float) -> Iterator[Separated]:
    """The mean over seeds of each measure that two seeds or more have."""
    for measure, fpr in dict.fromkeys((row.measure, row.fpr) for row in rows):
        mine = [row for row in rows if (row.measure, row.fpr) == (measure, fpr)]
        if len(mine) > 1:
            interval = over_seeds([row.estimate for row in mine], level)
            yield replace(
                mine[0], seed=None, members=sum(row.members for row in mine), others=sum(row.others for row in mine),
                estimate=float(interval.mean), low=float(interval.low), high=float(interval.high),
                method=f"t interval over {len(mine)} seeds", resampling_seed=None,
                flag=_flags(float(interval.low), *flags_of_runs(row.flag for row in mine)),
            )  # fmt: skip
