"""What happened to everything that was not planted: perplexity by domain, and benchmark items of no insertion.

A perplexity evaluation gives nll (nats), tokens and bytes for each text. Its loss is a ratio of sums,

    nats per token = sum nll / sum tokens          bits per byte = sum nll / (ln 2 * sum bytes)

so that long texts weigh as they should; treated − control is taken text by text (linearised ratio, paired).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pretrain_exp.analysis.contrasts import NO_VARIANCE, ONE_ITEM, Pair, flags_of_runs, paired_rows
from pretrain_exp.analysis.design import Design, Panel
from pretrain_exp.analysis.estimate import ALL, Estimate
from pretrain_exp.analysis.means import ratio_interval
from pretrain_exp.analysis.scores import Series
from pretrain_exp.analysis.seeds import over_seeds

_RATIOS = {"nats_per_token": ("tokens", 1.0), "bits_per_byte": ("bytes", float(np.log(2)))}
_ARMS = {"treated_vs_control": ("treated", "control"), "placebo_vs_control": ("placebo", "control")}
_PARTS = frozenset({"nll", "tokens", "bytes"})
_SIDES = ("item", "first", "second")


def side_effects(design: Design) -> list[Estimate]:
    """treated − control (and placebo − control) on every series, over items that no insertion holds.

    Of texts in several domains also over all of them, as the task ALL.
    """
    rows: list[Estimate] = []
    tasks: dict[str, dict[str, set[str]]] = {}
    for series in design.scores.series:
        tasks.setdefault(series.evaluation, {}).setdefault(series.task, set()).add(series.metric)
    for panel in design.panels:
        for evaluation, of_task in sorted(tasks.items()):
            for metric, (unit, scale) in _RATIOS.items():
                having = sorted(task for task, have in of_task.items() if {"nll", "tokens", unit} <= have)
                domains = [[task] for task in having] + ([having] if len(having) > 1 else [])
                for contrast in _ARMS:
                    for chosen in domains:
                        rows += _ratio(design, panel, contrast, evaluation, chosen, metric, unit, scale)
            for task, have in sorted(of_task.items()):
                ratios = {"nll", "tokens"} <= have
                for metric in sorted(have - _PARTS - set(_RATIOS) if ratios else have):
                    rows += _scored(design, panel, Series(evaluation, task, metric))
    return rows


def _scored(design: Design, panel: Panel, series: Series) -> Iterator[Estimate]:
    for contrast, arms in _ARMS.items():
        template = design.template(contrast, panel, series, None)
        pairs = design.pairs(panel, series, arms, None)
        yield from paired_rows(template, pairs, design.scores.binary[series], 0, design.rng_seed)


def _over(
    design: Design, panel: Panel, contrast: str, evaluation: str, tasks: Sequence[str], metric: str
) -> list[Pair]:
    """One pair a seed with the texts of all these tasks, each text of each task an item of its own."""
    by_seed: dict[int, list[Pair]] = {}
    for number, task in enumerate(tasks):
        for pair in design.pairs(panel, Series(evaluation, task, metric), _ARMS[contrast], None):
            item = pair.item + number * len(design.scores.items)
            by_seed.setdefault(pair.seed, []).append(replace(pair, item=item))
    found = []
    for seed, parts in by_seed.items():
        item, first, second = (np.concatenate([getattr(part, side) for part in parts]) for side in _SIDES)
        found.append(Pair(seed, item, first, second, parts[0].runs))
    return found


def _ratio(
    design: Design, panel: Panel, contrast: str, evaluation: str, tasks: Sequence[str], metric: str, unit: str,
    scale: float,
) -> Iterator[Estimate]:  # fmt: skip
    template = design.template(contrast, panel, Series(evaluation, tasks[0], "nll"), None)
    template = replace(template, metric=metric, task=tasks[0] if len(tasks) == 1 else ALL)
    losses, sizes = (_over(design, panel, contrast, evaluation, tasks, name) for name in ("nll", unit))
    rows: list[Estimate] = []
    of_seed = {size.seed: size for size in sizes}
    sized = [(loss, of_seed[loss.seed]) for loss in losses if loss.seed in of_seed]
    joined = [(loss, size, *np.intersect1d(loss.item, size.item, return_indices=True)) for loss, size in sized]
    joined = [each for each in joined if len(each[2])]
    for loss, size, both, i, j in joined:
        weight = size.second[j] * scale
        interval = ratio_interval(loss.difference[i], weight, template.level)
        alone = len(loss.item) - len(both)
        flags = [
            "" if not interval.degenerate else ONE_ITEM if len(both) == 1 else NO_VARIANCE,
            f"{alone:,} texts without {unit} are left out" if alone else "",
            f"{len(losses) - len(joined)} of {len(losses)} seeds have no {unit}" if len(joined) < len(losses) else "",
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
