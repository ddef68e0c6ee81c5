"""One study analysed: StudyData in, every number that a report prints out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pretrain_exp.analysis.agreement import Agreement, agreements
from pretrain_exp.analysis.answer import answers
from pretrain_exp.analysis.design import Design
from pretrain_exp.analysis.effects import effects
from pretrain_exp.analysis.estimate import Estimate, adjust
from pretrain_exp.analysis.findings import Findings, find
from pretrain_exp.analysis.levels import Level, levels, trajectories
from pretrain_exp.analysis.limits import Remark, limits
from pretrain_exp.analysis.loops import loops_of
from pretrain_exp.analysis.losses import side_effects
from pretrain_exp.analysis.matrix import Matrix, matrices
from pretrain_exp.analysis.noise_floor import Floor, floor_answers, noise_floor
from pretrain_exp.analysis.outcomes import Relevance, headline
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.power import mde_paired, mde_seeds
from pretrain_exp.analysis.responses import Response, responses
from pretrain_exp.analysis.scores import read_doses, read_scores
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.analysis.variants import scale_answers, variant_answers


@dataclass(frozen=True, kw_only=True)
class Power(Place):
    """What would have been seen with 80 % power at the spread that was observed. NaN where there is no spread.

    sd_items: of paired differences within a run; sd_seeds: of per-seed effects; all in units of the metric. n: of what
    `counted` says, a seed. binary: whether the metric is right or wrong in the whole study, so that its unit is points.
    """

    n: int
    counted: str
    seeds: int
    sd_items: float
    sd_seeds: float
    mde_run: float
    mde_seeds: float
    binary: bool


@dataclass(frozen=True)
class Analysis:
    """answers: what variants say of each other, then a passage for each panel and insertion. headline: the row behind
    the first of these.

    relevance: the order of what was measured, by which pages and tables are sorted.
    """

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
    relevance: Relevance
    matrices: list[Matrix] = field(default_factory=list)  # of arms that read one insertion alone
    floors: list[Floor] = field(default_factory=list)  # of runs without any edit, where there are no others
    agreements: list[Agreement] = field(default_factory=list)  # of variants of the model


def analyse(study: StudyData, level: float = 0.95, resamples: int = 2000, rng_seed: int = 0) -> Analysis:
    """All estimates, adjusted for their number within each question. Pure: the same study gives the same numbers."""
    scores = read_scores(study.results, loops_of(study.control))
    design = Design(scores, read_doses(study.items, scores.items), level, resamples, rng_seed)
    fits = responses(design)
    rows = effects(design) + side_effects(design) + [row for fit in fits for row in fit.rows]
    estimates = adjust(rows)
    relevance = Relevance(estimates, study.measured_by)
    found = find(study, design)
    floors = [] if scores.units("treated") else noise_floor(scores, level)
    top, agreeing = headline(estimates, relevance), agreements(estimates)
    between = scale_answers(agreeing, scores, top)
    between += variant_answers(estimates, scores, relevance, [panel.label for panel in design.panels])
    return Analysis(
        floor_answers(floors, scores) or between + answers(estimates, scores, relevance), top, estimates,
        levels(design), trajectories(design), fits, _power(design), limits(study, design, found.scant), found, design,
        relevance, matrices(study, design, relevance), floors, agreeing,
    )  # fmt: skip


def _power(design: Design) -> list[Power]:
    found = []
    for panel, insertion, series in design.measured():
        for cell in design.cells(panel, insertion, series):
            pairs = design.pairs(panel, series, ("treated", "control"), cell)
            pairs = [pair for pair in pairs if len(pair.item) > 1]
            if not (cell.main and pairs):
                continue
            variance = sum(float(p.difference.var(ddof=1)) for p in pairs) / len(pairs)
            n = round(sum(len(p.item) for p in pairs) / len(pairs))
            spread = _sd([float(p.difference.mean()) for p in pairs])
            in_a_run = float(mde_paired(variance, n, level=design.level)) if variance > 0 else math.nan
            over_seeds = mde_seeds(spread, len(pairs), level=design.level)
            found.append(
                Power(
                    panel=panel.label, insertion=insertion, **series._asdict(), group=cell.group, dose=cell.dose, n=n,
                    counted=design.counted(series, insertion), seeds=len(pairs), sd_items=math.sqrt(variance),
                    sd_seeds=spread, mde_run=in_a_run, mde_seeds=over_seeds,
                    binary=design.scores.right_or_wrong(series.metric),
                )
            )  # fmt: skip
    return found


def _sd(values: Sequence[float]) -> float:
    if len(values) < 2:
        return float("nan")
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
