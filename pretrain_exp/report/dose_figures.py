"""Pictures by dose: mean scores of every arm with the fitted curve, effects against control, variants of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

import numpy as np
from matplotlib.axes import Axes

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.estimate import Estimate, to_table
from pretrain_exp.analysis.levels import Level
from pretrain_exp.analysis.metrics import shown_metrics
from pretrain_exp.analysis.outcomes import Measured, measured_of
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import MAIN, Series
from pretrain_exp.analysis.study import ARMS
from pretrain_exp.report.axes import (
    Place,
    at,
    bars,
    change_label,
    difference_axis,
    dose_axis,
    forest,
    forest_height,
    level_label,
    named,
    place_of,
    plural,
    points,
    times_read,
    which,
    wrapped,
)
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.item_figures import every_item, over_steps
from pretrain_exp.report.pictures import ARM_COLOUR, INK, VARIANT_COLOURS, VARIANT_MARKERS, Picture, slug, table

MOST_LINES = 7  # variants that a picture by dose can hold


def dose_pictures(analysis: Analysis) -> Iterator[Picture]:
    """In the order of the report; names carry panel, insertion and task only where there are several."""
    found = dict.fromkeys(map(place_of, analysis.levels))  # panels in their order
    rank = {place: min(map(analysis.relevance.key, _metrics(analysis, place))) for place in found}
    places = sorted(found, key=lambda place: (place[1], rank[place]))
    if len({place[0] for place in places}) > 1:
        without = list(dict.fromkeys(place[1:] for place in places))
        for rest in without:
            yield from _variants(analysis, rest, which(rest, without))
    for place in places:
        metrics, own = _shown(analysis, place), which(place, places)
        for name in metrics:
            yield from _dose_response(analysis, place, name, own)
        yield from _effects(analysis, place, metrics, own)
        yield from every_item(analysis, place, own)
        yield from over_steps(analysis, place, metrics, own)


def _metrics(analysis: Analysis, place: Place) -> list[Measured]:
    return [Measured(*place, name) for name in dict.fromkeys(r.metric for r in analysis.levels if place_of(r) == place)]


def _shown(analysis: Analysis, place: Place) -> list[str]:
    """Those that answer first; what is the same number everywhere only where there is nothing else."""
    ranked = sorted(_metrics(analysis, place), key=analysis.relevance.key)
    speaking = [each.metric for each in ranked if not analysis.relevance.silent(each)]
    known = set(shown_metrics(speaking or [each.metric for each in ranked]))
    return [each.metric for each in ranked if each.metric in known]


def _dose_response(analysis: Analysis, place: Place, name: str, own: Sequence[str]) -> Iterator[Picture]:
    rows = [r for r in analysis.levels if place_of(r) == place and r.metric == name]
    doses = sorted({r.dose for r in rows})
    if len(doses) < 2:
        return
    several = any(r.seed is None for r in rows)
    means = main_rows(rows, lambda r: (r.arm, r.dose))
    fit = next((f for f in analysis.responses if (f.panel, f.insertion, *f.series) == (*place, name)), None)
    binary = analysis.design.scores.binary[Series(*place[2:], name)]
    m = analysis.design.scores.metric(name)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        spread = 0.024 * float(at(doses[-1]))
        arms = [arm for arm in ARMS if any(r.arm == arm for r in means)]
        if fit and not fit.fit.flag:
            curve = np.expm1(np.linspace(0, at(doses[-1]), 200))
            axes.plot(at(curve), fit.fit.predict(curve), color=ARM_COLOUR["treated"], lw=1.6, alpha=0.75, zorder=2)
        for index, arm in enumerate(arms):
            shift = (index - (len(arms) - 1) / 2) * spread
            chosen = [r for r in means if r.arm == arm]
            if several:
                single = [r for r in rows if r.arm == arm and r.seed is not None and r not in means]
                beside = at([r.dose for r in single]) + shift + 0.45 * spread
                points(axes, beside, [r.mean for r in single], arm)
            bars(axes, at([r.dose for r in chosen]) + shift, chosen, [r.mean for r in chosen], arm)
        if binary:
            shown = [v for r in means for v in (r.low, r.high, r.mean) if not np.isnan(v)]
            axes.set_ylim(max(-0.03, min(0.0, *shown) - 0.03), min(1.03, max(1.0, *shown) + 0.03))
        dose_axis(axes, doses)
        axes.set_ylabel(level_label(m))
        axes.legend(loc="best", ncols=len(arms))

    unit = " and ".join(dict.fromkeys(plural(r.method) for r in means)) + (
        "; small points: each seed" if several else ""
    )
    curve = " Curve: logit fit on log(1 + dose)." if fit and not fit.fit.flag else ""
    counts = sorted({r.n for r in means if r.arm == "treated"})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else "0"
    scores = "facts" if rows[0].counted == "facts" else "item scores"
    yield Picture(
        slug("dose_response", name, *own), "dose_response", f"{m.label.capitalize()} by dose{named(own)}",
        f"Mean with 95 % {unit}; n = {n} {scores} a point.{curve}",
        table([asdict(r) for r in rows], [f.name for f in fields(Level)]), draw,
    )  # fmt: skip


def _effects(analysis: Analysis, place: Place, metrics: Sequence[str], own: Sequence[str]) -> Iterator[Picture]:
    contrasts = {"treated_vs_control": "treated", "placebo_vs_control": "placebo"}
    rows = [
        r
        for r in analysis.estimates
        if place_of(r) == place and r.contrast in contrasts and r.group in MAIN and r.dose is not None
    ]
    rows = [r for r in rows if r.scope in ("run", "seeds") and r.metric in metrics]
    several = any(r.scope == "seeds" for r in rows)
    means = main_rows(rows, lambda r: (r.contrast, r.metric, r.dose))
    doses = sorted({r.dose for r in means if r.dose is not None})
    shown = [name for name in metrics if any(r.metric == name for r in means)]
    if not shown:
        return

    def draw(all_axes: Sequence[Axes]) -> None:
        for axes, name in zip(all_axes, shown, strict=True):
            m = analysis.design.scores.metric(name)
            axes.axhline(0, color=INK, lw=0.9)
            arms = [arm for contrast, arm in contrasts.items() if any(r.contrast == contrast for r in means)]
            for contrast, arm in contrasts.items():
                chosen = [r for r in means if r.contrast == contrast and r.metric == name]
                if not chosen:
                    continue
                shift = (arms.index(arm) - (len(arms) - 1) / 2) * 0.03 * float(at(doses[-1]))
                x = at([r.dose or 0 for r in chosen]) + shift
                bars(axes, x, chosen, [r.estimate for r in chosen], arm)
                single = [r for r in rows if (r.contrast, r.metric) == (contrast, name) and r not in means]
                beside = at([r.dose or 0 for r in single]) + shift + 0.016 * float(at(doses[-1]))
                points(axes, beside, [r.estimate for r in single], arm)
            difference_axis(axes.yaxis, m)
            dose_axis(axes, doses)
            axes.set_xlabel("times read (log scale)")
            axes.set_ylabel(f"{' or '.join(arms)} − control" + (f"\n[{m.unit}]" if m.unit else ""))
            axes.set_title(wrapped(m.label))
            if len(arms) > 1:
                axes.legend(loc="best")

    methods = " and ".join(dict.fromkeys(plural(r.method) for r in means))
    yield Picture(
        slug("effect", *own), "effects", f"Effect against control by dose{named(own)}",
        f"Difference to control on the same items, 95 % {methods}"
        + ("; small points: each seed." if several else "."),
        to_table([r for r in rows if r.metric in shown]), draw, columns=len(shown),
    )  # fmt: skip


def _variants(analysis: Analysis, place: Sequence[str], own: Sequence[str]) -> Iterator[Picture]:
    """The effect of every variant, in the metric that answers and in others that are shown first and say something."""
    rows = [
        r for r in analysis.estimates
        if (r.insertion, r.evaluation, r.task) == tuple(place) and r.contrast == "treated_vs_control"
        and r.group in MAIN and r.dose is not None and r.scope in ("run", "seeds")
    ]  # fmt: skip
    ranked = sorted(map(measured_of, rows), key=analysis.relevance.key)
    speaking = [each.metric for each in ranked if not analysis.relevance.silent(each)]
    known = set(shown_metrics(speaking))
    for name in dict.fromkeys((*(each.metric for each in ranked[:1]), *(name for name in speaking if name in known))):
        yield _variant_picture(analysis, [r for r in rows if r.metric == name], name, own)


def _variant_picture(analysis: Analysis, rows: Sequence[Estimate], name: str, own: Sequence[str]) -> Picture:
    """Lines over doses, or one row a variant and dose where lines would not be read."""
    means = main_rows(rows, lambda r: (r.panel, r.dose))
    doses = sorted({r.dose for r in means if r.dose is not None})
    labels = list(dict.fromkeys(r.panel for r in means))
    m = analysis.design.scores.metric(name)
    planted = [d for d in doses if d]
    lines = len(labels) <= MOST_LINES and len(planted) > 1
    listed = [r for label in labels for r in _listed(means, label, len(planted) > 1)]

    def draw_lines(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        axes.axhline(0, color=INK, lw=0.9)
        for index, label in enumerate(labels):
            mine = [r for r in means if r.panel == label]
            colour = VARIANT_COLOURS[index % len(VARIANT_COLOURS)]
            x = at([r.dose or 0 for r in mine]) + (index - (len(labels) - 1) / 2) * 0.02 * float(at(doses[-1]))
            for place, row in zip(x, mine, strict=True):
                axes.plot([place, place], [row.low, row.high], color=colour, lw=1.6)
            marker = VARIANT_MARKERS[index % len(VARIANT_MARKERS)]
            axes.plot(
                x, [r.estimate for r in mine], marker + "-", color=colour, lw=1.0, ms=6, label=_variant(label, 75)
            )
        dose_axis(axes, doses)
        difference_axis(axes.yaxis, m)
        axes.set_ylabel(change_label(m))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))

    names_of_rows = [
        ", ".join(part for part in (short_variant(r.panel) or "(unnamed)", *_told(r, listed)) if part) for r in listed
    ]

    def draw_rows(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        values = [(r.estimate, r.low, r.high) for r in listed]
        forest(axes, names_of_rows, [("treated", ARM_COLOUR["treated"], values)], 0.0)
        difference_axis(axes.xaxis, m)
        axes.set_xlabel(f"treated − control, {m.with_unit()}")

    return Picture(
        slug("variants", name, *own),
        "variants",
        f"Effect by variant{named(own)}",
        f"{m.label.capitalize()}, difference to control on the same items, 95 % {plural(means[0].method)}."
        + (" Of each variant the highest dose." if not lines and len(planted) > 1 else ""),
        to_table(means),
        draw_lines if lines else draw_rows,
        heights=(3.3 + 0.2 * len(labels),) if lines else (forest_height(names_of_rows),),
    )


def _variant(label: str, width: int) -> str:
    return wrapped(short_variant(label) or "(unnamed)", width)


def _listed(rows: Sequence[Estimate], label: str, highest: bool) -> list[Estimate]:
    """The rows of a variant, or those of its highest dose."""
    mine = [row for row in rows if row.panel == label]
    top = max(row.dose or 0 for row in mine)
    return [row for row in mine if row.dose == top] if highest else mine


def _told(row: Estimate, rows: Sequence[Estimate]) -> list[str]:
    """Dose and seed of a row where the rows differ in them."""
    dose = times_read(row.dose or 0, row.group) if len({r.dose for r in rows}) > 1 else ""
    return [dose, f"seed {row.seed}" if len({r.seed for r in rows}) > 1 and row.seed is not None else ""]
