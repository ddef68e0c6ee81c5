"""The findings of a study as single numbers under stable names, for W&B and TensorBoard: an analysis in, a dict out.

    effect/<insertion>/<task>/<metric>/dose16        treated − control, in units of the metric
    membership/<insertion>/<evaluation>/<metric>/<condition>/dose16/<scores>/auc | tpr_at_0.01
    knowledge/<insertion>/<type>/dose16/<scores>/effectivity | decay
    forgetting/<insertion>/<task>/<metric>/dose16/<curve>/half_life
    learned/<insertion>/<task>/<metric>/dose16/<arm>/<code>     share of the items, mean over runs
    watermark/<insertion>/<evaluation>/<noise>/<arm>/dose16/mean | tpr
    dependence/<read>/<outcome>                                   treated − control of the outcome

Each is the row to conclude from: over seeds where there are several. A variant's label stands before the rest. All
begin with `finding/`; a task has its evaluation before it where it does not begin with it. What has no value is left
out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.answer import outcome_name
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.knowledge import Effect
from pretrain_exp.analysis.outcomes import measured_of
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.separations import Separated
from pretrain_exp.report.chosen import main_rows, of_shown_metrics

ROOM = "finding"
_SCORES = {"treated": "treated", "control": "control", "treated − control": "above_control"}


def tracked(analysis: Analysis) -> dict[str, float]:
    """Name -> value; a mean where several single runs stand for one number."""
    found: dict[str, list[float]] = defaultdict(list)
    for kind in (_effects, _membership, _knowledge, _forgetting, _learned, _watermarks, _dependence):
        for parts, value in kind(analysis):
            if math.isfinite(value):
                found["/".join(str(part) for part in (ROOM, *parts) if part != "")].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


Numbers = Iterator[tuple[tuple[object, ...], float]]


def _effects(analysis: Analysis) -> Numbers:
    rows = [
        row for row in analysis.estimates
        if row.contrast == "treated_vs_control" and row.dose is not None
        and row.scope in ("run", "seeds")
    ]  # fmt: skip
    for row in main_rows(of_shown_metrics(rows), lambda r: (measured_of(r), r.group, r.dose)):
        yield ("effect", *_asked(row), row.group, f"dose{row.dose}"), row.estimate


def _asked(row: Estimate | Place) -> tuple[str, ...]:
    return row.panel, row.insertion, outcome_name(row.evaluation, row.task), row.metric


def _membership(analysis: Analysis) -> Numbers:
    def place(row: Separated) -> tuple[str, ...]:
        return row.panel, row.insertion, row.evaluation, row.metric

    rows = analysis.findings.separations
    for row in main_rows(rows, lambda r: (*place(r), r.group, r.dose, r.scores, r.fpr)):
        measure = row.measure if row.fpr is None else f"tpr_at_{row.fpr:g}"
        where = (*place(row), row.group or "all", f"dose{row.dose}")
        yield ("membership", *where, _SCORES[row.scores], measure), row.estimate


def _knowledge(analysis: Analysis) -> Numbers:
    for table in analysis.findings.knowledge:
        rows = [row for row in table.rows if isinstance(row, Effect) and row.outliers]
        for row in main_rows(rows, lambda r: (r.member, r.insertion, r.type, r.dose, r.against)):
            scores = "above_control" if row.against else "treated"
            yield (
                ("knowledge", row.member, row.insertion, row.type, f"dose{row.dose}", scores, table.name), row.estimate
            )  # fmt: skip


def _forgetting(analysis: Analysis) -> Numbers:
    rows = analysis.findings.fades
    for row in main_rows(rows, lambda r: (r.panel, r.insertion, r.evaluation, r.task, r.metric, r.dose, r.curve)):
        yield ("forgetting", *_asked(row), f"dose{row.dose}", row.curve, "half_life"), row.half_life


def _learned(analysis: Analysis) -> Numbers:
    """A code that a run does not have is a share of 0 there."""
    rows = analysis.findings.codes
    runs: dict[tuple[object, ...], set[tuple[str, int]]] = defaultdict(set)
    shares: dict[tuple[object, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        place = (*_asked(row), f"dose{row.dose}", row.arm)
        runs[place].add((row.member, row.seed))
        shares[place][row.code] += row.share
    for where, codes in shares.items():
        for code, share in codes.items():
            yield ("learned", *where, code.replace(" ", "_")), share / len(runs[where])


def _watermarks(analysis: Analysis) -> Numbers:
    rows = analysis.findings.watermarks
    for row in main_rows(rows, lambda r: (r.panel, r.insertion, r.evaluation, r.noise, r.arm, r.dose)):
        for name in ("mean", "tpr"):
            place = (row.panel, row.insertion, row.evaluation, row.noise, row.arm, f"dose{row.dose}", name)
            yield ("watermark", *place), getattr(row, name)


def _dependence(analysis: Analysis) -> Numbers:
    for matrix in analysis.matrices:
        for cell in matrix.cells:
            yield ("dependence", matrix.panel, cell.treatment, cell.outcome), cell.estimate
