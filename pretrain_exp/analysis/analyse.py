"""One study analysed: StudyData in, every number that a report prints out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pretrain_exp.analysis.answer import answers, headline
from pretrain_exp.analysis.effects import Design, effects
from pretrain_exp.analysis.estimate import Estimate, adjust
from pretrain_exp.analysis.findings import Findings, find
from pretrain_exp.analysis.levels import Level, levels, trajectories
from pretrain_exp.analysis.limits import Remark, limits
from pretrain_exp.analysis.losses import side_effects
from pretrain_exp.analysis.matrix import Matrix, matrices
from pretrain_exp.analysis.noise_floor import Floor, floor_answers, noise_floor
from pretrain_exp.analysis.power import mde_paired, mde_seeds
from pretrain_exp.analysis.responses import Response, responses
from pretrain_exp.analysis.scores import read_doses, read_scores
from pretrain_exp.analysis.study import StudyData


@dataclass(frozen=True)
class Power:
    """What would have been seen with 80 % power at the spread that was observed. NaN where it cannot be said.

    sd_items: of paired differences within a run; sd_seeds: of per-seed effects; all in units of the metric.
    """

    metric: str
    panel: str
    insertion: str
    dose: int
    n: int
    seeds: int
    sd_items: float
    sd_seeds: float
    mde_run: float
    mde_seeds: float


@dataclass(frozen=True)
class Analysis:
    """answers: a passage for each panel and insertion. headline: the row behind the first of them."""

    answers: list[str]
    headline: Estimate | None
    estimates: list[Estimate]
    levels: list[Level]
    trajectories: list[Level]
    responses: list[Response]
    power: list[Power]
    remarks: list[Remark]
    findings: Findings
    design: Design
    matrices: list[Matrix] = field(default_factory=list)  # of arms that read one insertion alone
    floors: list[Floor] = field(default_factory=list)  # of runs without any edit, where there are no others


def analyse(study: StudyData, level: float = 0.95, resamples: int = 2000, rng_seed: int = 0) -> Analysis:
    """All estimates, adjusted for their number within each question. Pure: the same study gives the same numbers."""
    scores = read_scores(study.results)
    design = Design(scores, read_doses(study.items, scores.items), level, resamples, rng_seed)
    fits = responses(design)
    rows = effects(design) + side_effects(design) + [row for fit in fits for row in fit.rows]
    estimates = adjust(rows)
    floors = [] if scores.units("treated") else noise_floor(scores, level)
    return Analysis(
        floor_answers(floors) or answers(estimates), headline(estimates), estimates, levels(design),
        trajectories(design), fits, _power(design, estimates), limits(study, design), find(study, design), design,
        matrices(study, design), floors,
    )  # fmt: skip


def _power(design: Design, rows: Sequence[Estimate]) -> list[Power]:
    found = []
    for panel in design.panels:
        for insertion in design.doses.insertions:
            for series in design.series(panel, insertion):
                for cell in design.cells(panel, insertion):
                    pairs = design.pairs(panel, series, ("treated", "control"), cell)
                    pairs = [pair for pair in pairs if len(pair.item) > 1]
                    if cell.group or not pairs:
                        continue
                    variance = sum(float(p.difference.var(ddof=1)) for p in pairs) / len(pairs)
                    n = round(sum(len(p.item) for p in pairs) / len(pairs))
                    effect = [float(p.difference.mean()) for p in pairs]
                    spread = _sd(effect)
                    found.append(
                        Power(
                            series.metric,
                            panel.label,
                            insertion,
                            cell.dose,
                            n,
                            len(pairs),
                            math.sqrt(variance),
                            spread,
                            float(mde_paired(variance, n, level=design.level)),
                            mde_seeds(spread, len(pairs), level=design.level),
                        )
                    )
    return found


def _sd(values: Sequence[float]) -> float:
    if len(values) < 2:
        return float("nan")
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
