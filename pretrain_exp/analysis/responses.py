"""Dose-response of a whole study: right or wrong by item, dose and seed in, slopes, r50 and trends out.

Within each seed: logit fit with errors clustered by item (by fact, where facts are counted), r50 with Fieller's
interval, Cochran-Armitage trend. Over seeds:
t interval on the per-seed slopes and on log(1 + r50). The fit of all seeds together draws the curve and is descriptive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from pretrain_exp.analysis.contrasts import DESCRIPTIVE, FACTS, NO_VARIANCE, Vector, flags_of_runs
from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.dose_response import LogitFit, Trend, cochran_armitage, fit_logit, from_dose_0, r50
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.scores import Series
from pretrain_exp.analysis.seeds import TOO_WIDE, UNDETERMINED, over_seeds

OUTSIDE = "outside the doses that were tried"
FEW_FACTS = "probes of a fact are not independent: see the slope, whose errors are clustered by fact"


@dataclass(frozen=True)
class Response:
    """The fitted curve of one panel, insertion and binary metric, and its rows. largest: highest dose tried."""

    panel: str
    insertion: str
    series: Series
    fit: LogitFit
    largest: int
    rows: list[Estimate]


def responses(design: Design) -> list[Response]:
    """Binary metrics with three doses or more (0 included); with two there is a difference, not a curve."""
    found = []
    for panel, insertion, series in design.measured():
        cells = [cell for cell in design.cells(panel, insertion, series) if not cell.group]
        if design.scores.binary[series] and len(cells) > 2:
            found.append(_response(design, panel, series, cells))
    return found


def _response(design: Design, panel: Panel, series: Series, cells: list[Cell]) -> Response:
    template = replace(design.template("slope", panel, series, cells[0]), dose=None)
    largest = max(cell.dose for cell in cells)
    samples = {seed: _observations(design, panel, series, cells, seed) for seed in panel.seeds}
    samples = {seed: sample for seed, sample in samples.items() if len(sample[0])}
    rows: list[Estimate] = []
    for seed, (right, dose, item) in samples.items():
        rows += _fit_rows(replace(template, scope="run", seed=seed), fit_logit(right, dose, item), largest)
        repeated = len(np.unique(item)) < len(item)
        trend = Trend(np.nan, np.nan, FEW_FACTS) if template.counted == FACTS else cochran_armitage(right, dose)
        rows.append(
            replace(
                template, contrast="trend", scope="run", seed=seed, n=len(right), estimate=trend.z, p=trend.p,
                method="Cochran-Armitage", p_method="Cochran-Armitage",
                flag=trend.flag or ("items counted once for each variant" if repeated else ""),
            )
        )  # fmt: skip
    pooled = fit_logit(*(np.concatenate(parts) for parts in zip(*samples.values(), strict=True)))
    if len(samples) > 1:
        rows += [_over_seeds(template, rows, "slope"), _r50_over_seeds(template, rows, largest)]
        descriptive = _fit_rows(replace(template, scope="pooled", seeds=len(samples)), pooled, largest)
        rows += [replace(row, flag="; ".join(filter(None, (DESCRIPTIVE, row.flag)))) for row in descriptive]
    return Response(panel.label, template.insertion, series, pooled, largest, rows)


def _observations(
    design: Design, panel: Panel, series: Series, cells: list[Cell], seed: int
) -> tuple[Vector, Vector, Vector]:
    """right, dose, fact (or item): (n,) each, of the treated arms of one seed."""
    right, dose, item = [], [], []
    for unit in panel.of_seed(seed):
        vector = design.at_end(series, unit, "treated")
        if vector is None:
            continue
        for cell in cells:
            chosen = np.flatnonzero(design.mask(unit, cell) & ~np.isnan(vector))
            right.append(vector[chosen])
            dose.append(np.full(len(chosen), float(cell.dose)))
            item.append(design.fact_codes(chosen).astype(float))
    if not right:
        return np.empty(0), np.empty(0), np.empty(0)
    return np.concatenate(right), np.concatenate(dose), np.concatenate(item)


def _fit_rows(template: Estimate, fit: LogitFit, largest: int) -> list[Estimate]:
    z, half = norm.ppf(0.5 + template.level / 2), r50(fit, template.level)
    with np.errstate(invalid="ignore"):
        p = float(2 * norm.sf(abs(fit.slope) / fit.slope_se))
    outside = OUTSIDE if half.estimate > largest else ""
    return [
        replace(
            template,
            contrast="slope",
            n=fit.n,
            estimate=fit.slope,
            low=fit.slope - z * fit.slope_se,
            high=fit.slope + z * fit.slope_se,
            method=f"logit, sandwich clustered by {fit.clusters} {template.counted}",
            p=p,
            p_method="Wald",
            flag=fit.flag,
        ),
        replace(
            template,
            contrast="r50",
            n=fit.n,
            estimate=half.estimate,
            low=half.low,
            high=half.high,
            method="Fieller interval of the logit fit",
            flag=half.flag or outside,
        ),
    ]


def _over_seeds(template: Estimate, rows: list[Estimate], contrast: str) -> Estimate:
    mine = [row for row in rows if row.contrast == contrast and row.scope == "run"]
    chosen = [row for row in mine if not np.isnan(row.estimate)]
    row = replace(template, contrast=contrast, scope="seeds", seed=None, seeds=len(chosen), n=sum(r.n for r in chosen))
    if len(chosen) < 2:
        reasons = flags_of_runs(row.flag for row in mine)
        return replace(row, estimate=float("nan"), flag="; ".join(["fewer than two seeds have a fit", *reasons]))
    interval = over_seeds([r.estimate for r in chosen], template.level)
    return replace(
        row, estimate=float(interval.mean), low=float(interval.low), high=float(interval.high), p=float(interval.p),
        method=f"t interval over {len(chosen)} seeds", p_method=f"t over {len(chosen)} seeds",
        flag="; ".join(filter(None, [NO_VARIANCE if interval.degenerate else "", *_without(mine)])),
    )  # fmt: skip


def _without(runs: list[Estimate]) -> list[str]:
    """How many runs have no such number, and what the runs are flagged for."""
    lost, flags = sum(np.isnan(row.estimate) for row in runs), flags_of_runs(row.flag for row in runs)
    return [f"{lost} of {len(runs)} seeds have none", *flags] if lost else flags


def _r50_over_seeds(template: Estimate, rows: list[Estimate], largest: int) -> Estimate:
    """On log(1 + r50), where it is a mean like any other; no number where a seed has none, or where it is too wide."""
    runs = [row for row in rows if row.contrast == "r50" and row.scope == "run"]
    halves, flags = [row.estimate for row in runs], _without(runs)
    row = replace(
        template, contrast="r50", scope="seeds", seeds=len(runs), n=sum(row.n for row in runs), estimate=float("nan"),
        method=f"t interval over {len(runs)} seeds on log(1 + r50)", flag="; ".join(flags),
    )  # fmt: skip
    if np.isnan(halves).any():
        return row
    interval = over_seeds(np.log1p(halves), template.level)
    middle, high = float(interval.mean), float(interval.high)
    low = from_dose_0(float(interval.low), middle)
    if high - low >= np.log(UNDETERMINED):
        return replace(row, flag="; ".join([TOO_WIDE, *flags]))
    estimate = float(np.expm1(middle))
    own = NO_VARIANCE if interval.degenerate else OUTSIDE if estimate > largest else ""
    return replace(
        row, estimate=estimate, low=float(np.expm1(low)), high=float(np.expm1(high)),
        flag="; ".join(dict.fromkeys(filter(None, [own, *flags]))),
    )  # fmt: skip
