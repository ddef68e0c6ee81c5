"""Pictures of what only some studies have: membership, forgetting, planted facts, codes of learning, noise, properties.

Rows of `analysis.findings` in, pictures out, each only where its rows are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from scipy.stats import norm

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.codes import CodeShare
from pretrain_exp.analysis.design import Cell
from pretrain_exp.analysis.fading import FadedPoint
from pretrain_exp.analysis.findings import rows_to_table
from pretrain_exp.analysis.forgetting import exponential, logarithmic
from pretrain_exp.analysis.knowledge import TracePoint
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.watermarks import FRESH, PLANTED
from pretrain_exp.report.axes import (
    change_label,
    difference_axis,
    dose_colours,
    forest,
    forest_height,
    named,
    times_read,
    which,
    wrapped,
)
from pretrain_exp.report.chosen import main_rows, of_shown_metrics
from pretrain_exp.report.membership_figures import membership_pictures
from pretrain_exp.report.pictures import (
    ARM_COLOUR,
    ARM_LINE,
    ARM_MARKER,
    FAINT,
    INK,
    Picture,
    slug,
)
from pretrain_exp.report.rows import seed_of, short


def finding_pictures(analysis: Analysis) -> Iterator[Picture]:
    """In the order of the report's sections."""
    yield from _properties(analysis)
    found, metric = analysis.findings, analysis.design.scores.metric
    for own, rows in _places(found.separations, "panel", "insertion", "evaluation"):
        yield from membership_pictures(rows, own, metric)
    traces = [row for each in found.knowledge for row in each.rows if isinstance(row, TracePoint)]
    for own, points in _places(traces, "member", "insertion"):
        yield from _traces(points, own)
    for own, faded in _places(found.faded, "panel", "insertion", "evaluation", "task", "metric"):
        yield _fading(faded, own, metric(faded[0].metric))
    for own, shares in _places(found.codes, "panel", "insertion", "evaluation", "task", "metric"):
        yield _learned(shares, own, metric(shares[0].metric))
    yield from _watermarks(analysis)


def _places(rows: Sequence[Any], *names: str) -> Iterator[tuple[list[str], list[Any]]]:
    """Rows by these fields, each group with what tells it from the others."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    for place, mine in groups.items():
        yield which(place, list(groups)), mine


def _properties(analysis: Analysis) -> Iterator[Picture]:
    """Effects by item group, where doses and groups are crossed."""
    rows = [
        row for row in analysis.estimates
        if row.contrast == "treated_vs_control" and row.group and row.dose
        and row.scope in ("run", "seeds")
    ]  # fmt: skip
    for own, mine in _places(of_shown_metrics(rows), "panel", "insertion", "evaluation", "task", "metric"):
        if len({row.group for row in mine}) < 2:
            continue
        shown = main_rows(mine, lambda row: (row.group, row.dose))
        shown.sort(key=lambda row: (row.group, row.dose))
        m = analysis.design.scores.metric(shown[0].metric)
        labels = [f"{row.group}, {times_read(row.dose)}" + seed_of(row.seed, shown) for row in shown]
        lines = [("treated", ARM_COLOUR["treated"], [(row.estimate, row.low, row.high) for row in shown])]

        def draw(all_axes: Sequence[Axes], labels: list[str] = labels, lines: list[Any] = lines, m: Any = m) -> None:
            forest(all_axes[0], labels, lines, 0.0)
            all_axes[0].set_xlabel(f"treated − control, {m.with_unit()}")
            difference_axis(all_axes[0].xaxis, m)

        yield Picture(
            slug("properties", *own), "effects", f"Effect by property of the item{named(own)}",
            f"Difference to control on the same items, 95 % {shown[0].method}.", rows_to_table(shown), draw,
            heights=(forest_height(labels),),
        )  # fmt: skip


def _traces(rows: list[TracePoint], own: list[str]) -> Iterator[Picture]:
    kinds, doses = list(dict.fromkeys(row.type for row in rows)), sorted({row.dose for row in rows})
    if len({row.step for row in rows}) < 2:
        return

    def draw(all_axes: Sequence[Axes]) -> None:
        for axes, kind in zip(all_axes, kinds, strict=True):
            for arm in ("control", "treated"):
                for dose, colour in zip(doses, dose_colours(doses), strict=True):
                    mine = [row for row in rows if (row.type, row.arm, row.dose) == (kind, arm, dose)]
                    steps = sorted({row.step for row in mine})
                    means = [float(np.mean([r.log_prob for r in mine if r.step == step])) for step in steps]
                    label = times_read(dose) if arm == "treated" else None
                    axes.plot(
                        steps, means, ARM_MARKER[arm] + ARM_LINE[arm], color=colour, ms=3 if arm == "treated" else 2,
                        lw=1.5 if arm == "treated" else 0.9, label=label,
                    )  # fmt: skip
            axes.set_title(kind)
            axes.set_xlabel("step")
            axes.locator_params(axis="x", nbins=4)
        all_axes[0].set_ylabel("log-probability [nats]")
        all_axes[0].plot([], [], color=FAINT, ls="--", label="control")
        all_axes[-1].legend(*all_axes[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1.01, 0.5))

    yield Picture(
        slug("facts", *own), "facts", f"Planted facts over training{named(own)}",
        "Mean log-probability of a probe's target by how often its fact was read, over probes and seeds; dashed: in "
        "control. No intervals are drawn: the table has them.",
        rows_to_table(rows), draw, columns=len(kinds),
    )  # fmt: skip


def _fading(rows: list[FadedPoint], own: list[str], m: Metric) -> Picture:
    shown = sorted(main_rows(rows, lambda row: (row.dose, row.bin)), key=lambda row: (row.dose, row.distance))
    doses, unit = sorted({row.dose for row in shown}), shown[0].unit

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        axes.set_xscale("log")
        axes.axhline(0, color=INK, lw=0.9)
        curves = {}
        for dose, colour in zip(doses, dose_colours(doses), strict=True):
            mine = [row for row in shown if row.dose == dose]
            x, y = np.array([row.distance for row in mine]), np.array([row.effect for row in mine])
            for place, row in zip(x, mine, strict=True):
                if row.low == row.low:
                    axes.plot([place, place], [row.low, row.high], color=colour, lw=1.3, alpha=0.8)
            axes.plot(x, y, "o", color=colour, ms=5.5, label=times_read(dose))
            if len(np.unique(x)) > 2:
                fine = np.geomspace(x.min(), x.max(), 100)
                a, tau = exponential(x, y).parameters
                if np.isfinite(tau):  # an effect that does not fade has no exponential
                    curves["exponential"] = "-"
                    axes.plot(fine, a * np.exp(-fine / tau), "-", color=colour, lw=1.1)
                curves["logarithmic"] = "--"
                a, b = logarithmic(x, y, float(x.min())).parameters
                axes.plot(fine, a + b * np.log10(fine), "--", color=colour, lw=1.1)
        top = [row for row in shown if row.dose == doses[-1] and row.weight_left == row.weight_left]
        if len(top) > 1:
            bound = [top[0].effect * row.weight_left / top[0].weight_left for row in top]
            axes.plot([row.distance for row in top], bound, ":", color=FAINT, lw=1.6, label="weight decay alone")
        for name, style in sorted(curves.items()):
            axes.plot([], [], style, color=FAINT, lw=1.1, label=name)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=12))
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(f"{unit} since the item was last read (log scale)")
        axes.set_ylabel(change_label(m))
        difference_axis(axes.yaxis, m)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    bound = " Dotted: what the optimizer's weight decay alone leaves, from the nearest point of the highest dose."
    return Picture(
        slug("forgetting", *own), "forgetting", f"Effect by time since the last exposure{named(own)}",
        f"Means of items in bins of their distance, 95 % {shown[0].method}; curves: least squares through these "
        "points (those of the table: through the items of each seed), drawn also where no fading fits as well."
        + (bound if any(row.weight_left == row.weight_left for row in shown) else ""),
        rows_to_table(shown), draw,
    )  # fmt: skip


def _learned(rows: list[CodeShare], own: list[str], m: Metric) -> Picture:
    doses = sorted({row.dose for row in rows})
    group = rows[0].group
    steps = sorted({row.step for row in rows if row.step is not None and row.code.startswith("learned")})

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        for arm in ("control", "treated"):
            for dose, colour in zip(doses, dose_colours(doses), strict=True):
                mine = [r for r in rows if r.arm == arm and r.dose == dose]
                runs = len({(r.member, r.seed) for r in mine})
                if not runs:
                    continue
                good = [r for r in mine if r.code.startswith("learned")]
                by = [sum(r.share for r in good if r.step is not None and r.step <= step) / runs for step in steps]
                axes.plot(
                    steps, by, ARM_MARKER[arm] + ARM_LINE[arm], color=colour, drawstyle="steps-post",
                    lw=1.7 if arm == "treated" else 1.0, ms=4 if arm == "treated" else 2.5,
                    label=times_read(dose, group) if arm == "treated" else None,
                )  # fmt: skip
        axes.plot([], [], color=FAINT, ls=ARM_LINE["control"], label="control")
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("step")
        axes.set_ylabel("learned by then for good")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    return Picture(
        slug("learned", *own), "learned", f"When items were learned{named(own)}",
        f"Share of the items whose {m.label} is wrong before an evaluated step and right from it on, mean over runs; "
        "dashed: the same items in control.",
        rows_to_table(rows), draw,
    )  # fmt: skip


def _watermarks(analysis: Analysis) -> Iterator[Picture]:
    """Histograms of the inner products: planted noise in both arms and fresh noise, with the null's density."""
    design = analysis.design
    rows = analysis.findings.watermarks
    for own, mine in _places(rows, "panel", "insertion", "evaluation"):
        panel = next(p for p in design.panels if p.label == mine[0].panel)
        samples: dict[str, list[float]] = {}
        for name, wanted, arm in (
            ("planted, treated", PLANTED, "treated"), ("planted, control", PLANTED, "control"),
            ("fresh, treated", FRESH, "treated"),
        ):  # fmt: skip
            for series in design.series(panel, mine[0].insertion):
                if (series.evaluation, series.metric) == (mine[0].evaluation, wanted):
                    for dose in sorted({row.dose for row in mine} - {0}):
                        for unit in panel.units:
                            cell = Cell(mine[0].insertion, "", dose)
                            samples.setdefault(name, []).extend(design.values(series, unit, arm, cell).tolist())
        samples = {name: values for name, values in samples.items() if values}
        if samples:
            yield _histogram(samples, own)


def _histogram(samples: dict[str, list[float]], own: list[str]) -> Picture:
    everything = np.concatenate([np.asarray(values) for values in samples.values()])
    edge = max(3.5, float(np.abs(everything).max()) + 0.2)
    bins = np.linspace(-edge, edge, 41).tolist()
    colours = {"planted, treated": ARM_COLOUR["treated"], "planted, control": ARM_COLOUR["control"]}

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        fine = np.linspace(-edge, edge, 300)
        axes.plot(fine, norm.pdf(fine), color=INK, lw=1.1, label="N(0, 1)")
        for name, values in samples.items():
            colour = colours.get(name, ARM_COLOUR["placebo"])
            axes.hist(values, bins, density=True, histtype="step", color=colour, lw=1.6, label=wrapped(name))
        axes.set_xlabel("inner product with the noise [standard deviations]")
        axes.set_ylabel("density")
        axes.legend(loc="best")

    data = pa.table(
        {
            "sample": [name for name, values in samples.items() for _ in values],
            "value": [value for values in samples.values() for value in values],
        }
    )
    return Picture(
        slug("watermark", *own), "watermark", f"Trace of planted noise{named(own)}",
        "Sequences of all doses above 0 and all seeds. Noise that was never trained on gives N(0, 1).", data, draw,
    )  # fmt: skip
