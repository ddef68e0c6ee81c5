"""When items were learned, over all evaluated steps: scores of states in, shares of codes and their recurrence out.

A code says at which step an item turned from wrong to right for good (`learned.py`). Codes of one run are noisy, so
beside the shares stands how often another control run gives an item the same code: what picking items by a code would
find again without any treatment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pretrain_exp.analysis.contrasts import Vector
from pretrain_exp.analysis.design import Design, Panel
from pretrain_exp.analysis.learned import describe, learned_at, recurrence
from pretrain_exp.analysis.metrics import shown_metrics
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.scores import Series, Unit
from pretrain_exp.analysis.study import ARMS


@dataclass(frozen=True, kw_only=True)
class CodeShare(Place):
    """How many of the items at a dose in one run have a code. step: of the code; None for never and unstable."""

    arm: str
    member: str
    seed: int
    code: str
    step: int | None
    items: int
    share: float


@dataclass(frozen=True, kw_only=True)
class CodeRecurrence:
    """Of items that one control run learned at `step`, what another one makes of them; shares over pairs of runs.

    panel: the variant that the runs are of. right: share of them that another run has right at this very step.
    """

    panel: str
    evaluation: str
    task: str
    metric: str
    step: int
    runs: int
    picked: float
    again: float
    earlier: float
    later: float
    other: float
    right: float


def codes(design: Design) -> list[CodeShare]:
    """Shares for every run and dose, of right-or-wrong metrics that were scored at two steps or more."""
    return [
        row
        for panel, insertion, series in design.shown(lambda series: design.scores.binary[series])
        for row in _shares(design, panel, insertion, series)
    ]


def _shares(design: Design, panel: Panel, insertion: str, series: Series) -> Iterator[CodeShare]:
    for unit in panel.units:
        for arm in ARMS:
            steps, answers = _answers(design, series, unit, arm)
            if len(steps) < 2:
                continue
            found = learned_at(answers, steps)
            scored = ~np.isnan(answers).all(axis=1)
            for cell in design.cells(panel, insertion, series):
                mine = found[scored & design.mask(unit, cell)] if cell.main else np.empty(0)
                for code in np.unique(mine).tolist():
                    n = int((mine == code).sum())
                    words = describe(int(code))
                    step = int(words.rpartition(" ")[2]) if " at " in words else None
                    yield CodeShare(
                        panel=panel.label, insertion=insertion, evaluation=series.evaluation, task=series.task,
                        metric=series.metric, group=cell.group, dose=cell.dose, arm=arm, member=unit.member,
                        seed=unit.seed, code=words, step=step, items=n, share=n / len(mine),
                    )  # fmt: skip


def recurrences(design: Design) -> list[CodeRecurrence]:
    """For every right-or-wrong metric that two control runs or more of a variant were scored on at the same steps."""
    rows: list[CodeRecurrence] = []
    binary = [series for series in design.scores.series if design.scores.binary[series]]
    names, alike = shown_metrics(series.metric for series in binary), _alike(design)
    for series in binary:
        if series.metric not in names:
            continue
        for panel, controls in alike.items():
            rows += _recurrences(design, series, panel, controls)
    return rows


def _alike(design: Design) -> dict[str, list[Unit]]:
    """Variant -> its control runs, one training once; "" for those that variants share."""
    panel_of = {unit: panel.label for panel in design.panels for unit in panel.units}
    found: dict[str, list[Unit]] = {}
    for unit in dict.fromkeys(design.scores.originals.values()):
        found.setdefault(panel_of.get(unit, unit.member), []).append(unit)
    return found


def _recurrences(design: Design, series: Series, panel: str, controls: list[Unit]) -> Iterator[CodeRecurrence]:
    found = [_answers(design, series, unit, "control") for unit in controls]
    steps = found[0][0]
    runs = [answers for own, answers in found if own == steps]
    if len(steps) < 2 or len(runs) < 2:
        return
    scored = ~np.isnan(np.stack(runs)).any(axis=(0, 2))
    for each in recurrence([run[scored] for run in runs], steps) if scored.any() else []:
        yield CodeRecurrence(
            panel=panel, evaluation=series.evaluation, task=series.task, metric=series.metric, step=each.step,
            runs=len(runs), picked=each.picked, again=each.again, earlier=each.earlier, later=each.later,
            other=each.other, right=each.accuracy[each.step],
        )  # fmt: skip


def _answers(design: Design, series: Series, unit: Unit, arm: str) -> tuple[list[int], Vector]:
    """The steps at which this arm was scored, and the scores (items, steps)."""
    run = design.scores.run_of(arm, unit)
    steps = [] if run is None else design.scores.steps(series, run, arm)
    vectors = [design.scores.get(series, unit, arm, step) for step in steps]
    there = [vector for vector in vectors if vector is not None]
    return steps, np.stack(there, axis=1) if there else np.empty((len(design.scores.items), 0))
