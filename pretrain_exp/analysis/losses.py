"""What happened to everything that was not planted: perplexity by domain, and benchmark items of no insertion.

A perplexity evaluation gives nll (nats), tokens and bytes for each text. Its loss is a ratio of sums,

    nats per token = sum nll / sum tokens          bits per byte = sum nll / (ln 2 * sum bytes)

so that long texts weigh as they should; treated − control is taken text by text (linearised ratio, paired).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pretrain_exp.analysis.contrasts import NO_VARIANCE, ONE_ITEM, flags_of_runs, paired_rows
from pretrain_exp.analysis.design import Design, Panel
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.means import ratio_interval
from pretrain_exp.analysis.scores import Series
from pretrain_exp.analysis.seeds import over_seeds

_RATIOS = {"nats_per_token": ("tokens", 1.0), "bits_per_byte": ("bytes", float(np.log(2)))}
_ARMS = {"treated_vs_control": ("treated", "control"), "placebo_vs_control": ("placebo", "control")}
_PARTS = frozenset({"nll", "tokens", "bytes"})


def side_effects(design: Design) -> list[Estimate]:
    """treated − control (and placebo − control) on every series, over items that no insertion holds."""
    rows: list[Estimate] = []
    for panel in design.panels:
        tasks = sorted({(s.evaluation, s.task) for s in design.scores.series})
        for evaluation, task in tasks:
            have = {s.metric for s in design.scores.series if (s.evaluation, s.task) == (evaluation, task)}
            ratios = {"nll", "tokens"} <= have
            for contrast in _ARMS:
                for metric, (unit, scale) in _RATIOS.items() if ratios else ():
                    if unit in have:
                        rows += _ratio(design, panel, contrast, Series(evaluation, task, metric), unit, scale)
                for metric in sorted(have - _PARTS - set(_RATIOS) if ratios else have):
                    series = Series(evaluation, task, metric)
                    pairs = design.pairs(panel, series, _ARMS[contrast], None)
                    template = design.template(contrast, panel, series, None)
                    rows += paired_rows(template, pairs, design.scores.binary[series], 0, design.rng_seed)
    return rows


def _ratio(design: Design, panel: Panel, contrast: str, series: Series, unit: str, scale: float) -> Iterator[Estimate]:
    nll = series._replace(metric="nll")
    template = replace(design.template(contrast, panel, nll, None), metric=series.metric)
    losses = design.pairs(panel, nll, _ARMS[contrast], None)
    sizes = design.pairs(panel, series._replace(metric=unit), _ARMS[contrast], None)
    rows: list[Estimate] = []
    of_seed = {size.seed: size for size in sizes}
    for loss in (each for each in losses if each.seed in of_seed):
        size = of_seed[loss.seed]
        both, i, j = np.intersect1d(loss.item, size.item, return_indices=True)
        if not len(both):
            continue
        weight = size.second[j] * scale
        interval = ratio_interval(loss.difference[i], weight, template.level)
        alone = len(loss.item) - len(both)
        flags = [
            "" if not interval.degenerate else ONE_ITEM if len(both) == 1 else NO_VARIANCE,
            f"{alone:,} texts without {unit} are left out" if alone else "",
        ]
        rows.append(
            replace(
                template, scope="run", seed=loss.seed, n=len(weight), estimate=float(interval.mean),
                low=float(interval.low), high=float(interval.high), p=float(interval.p), p_method="paired t",
                method="linearised ratio over texts, paired", value=float(loss.first[i].sum() / weight.sum()),
                reference=float(loss.second[i].sum() / weight.sum()),
                flag="; ".join(filter(None, flags)),
            )
        )  # fmt: skip
    yield from rows
    if len(rows) > 1:
        over = over_seeds([row.estimate for row in rows], template.level)
        yield replace(
            template, scope="seeds", seeds=len(rows), n=sum(row.n for row in rows), estimate=float(over.mean),
            low=float(over.low), high=float(over.high), p=float(over.p), method=f"t interval over {len(rows)} seeds",
            p_method=f"t over {len(rows)} seeds", value=float(np.mean([row.value for row in rows])),
            reference=float(np.mean([row.reference for row in rows])),
            flag="; ".join([*flags_of_runs(row.flag for row in rows), *([NO_VARIANCE] if over.degenerate else [])]),
        )  # fmt: skip
