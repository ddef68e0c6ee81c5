"""How doses, arms and places are named and drawn, the same in every picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from numpy.typing import NDArray

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.levels import Level
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import REMOVED
from pretrain_exp.report.pictures import ARM_COLOUR, ARM_LINE, ARM_MARKER, FAINT, INK, PAPER, VARIANT_MARKERS

Place = tuple[str, str, str, str]  # panel, insertion, evaluation, task
_RAMP = matplotlib.colors.LinearSegmentedColormap.from_list(
    "dose", ["#4f63d2", "#a65fc4", "#e0667f", "#f09a4a", "#e3bd3a"]
)


def place_of(row: Level | Estimate) -> Place:
    return row.panel, row.insertion, row.evaluation, row.task


def which(place: Sequence[str], places: Sequence[Sequence[str]]) -> list[str]:
    """What tells this place from the others: "" parts and those that all share are left out."""
    return [part for i, part in enumerate(place) if part and len({p[i] for p in places}) > 1]


def named(own: Sequence[str]) -> str:
    return f" ({', '.join(map(short_variant, own))})" if own else ""


def plural(method: str) -> str:
    return method.replace("interval", "intervals", 1)


def times_read(dose: int, group: str = "") -> str:
    if group == REMOVED:
        return f"{REMOVED}, read {times_read(dose)}" if dose else REMOVED
    return "holdout" if dose == 0 else "once" if dose == 1 else f"{dose:,} times"


def at(dose: float | Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a dose stands on the axis: log(1 + dose), so that 0 has a place."""
    return np.log1p(np.asarray(dose, float))


def dose_axis(axes: Axes, doses: Sequence[int]) -> None:
    """Ticks at the doses themselves, thinned where they would touch."""
    ticks: list[int] = []
    for dose in sorted(doses):
        if not ticks or at(dose) - at(ticks[-1]) > 0.045 * (at(max(doses)) or 1):
            ticks.append(dose)
    axes.set_xticks(at(ticks), [f"{dose:,}" for dose in ticks])
    margin = 0.06 * (float(at(max(doses))) or 1.0)
    axes.set_xlim(-margin, float(at(max(doses))) + margin)
    axes.set_xlabel("times an item was read (0 = holdout; log scale)")


def difference_axis(axis: Axis, m: Metric) -> None:
    """Differences in points, with their signs, where the metric is a proportion: none is beyond 100 points.

    To be called when everything is drawn; an interval that goes further is cut, and the picture says so.
    """
    if m.scale == 100:
        low, high = axis.get_view_interval()
        if min(axis.get_data_interval()) < -1.05 or max(axis.get_data_interval()) > 1.05:
            say_cut(axis.axes, "intervals are cut at ±100 points")
        limits = axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim
        limits(max(low, -1.05), min(high, 1.05))
        axis.set_major_formatter(lambda value, _: m.difference(value).removesuffix(".0"))


def say_cut(axes: Axes, words: str) -> None:
    """In a corner: that something is drawn which goes on outside."""
    axes.text(0.99, 0.01, words, transform=axes.transAxes, ha="right", va="bottom", size=7.5, color=FAINT)


def level_label(m: Metric, between: str = "\n") -> str:
    """Of an axis with the scores themselves: a proportion is drawn as it is, only its differences are in points."""
    return m.label if m.scale == 100 else m.with_unit(between)


def change_label(m: Metric) -> str:
    """Of an upright axis with differences to control; in lines that the height of a picture holds."""
    return f"treated − control,\n{m.with_unit(chr(10))}"


def wrapped(label: str, width: int = 30) -> str:
    """A long label in several lines; "a=1, b=2" breaks between its parts where it can."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=True)) or label


def forest_height(labels: Sequence[str]) -> float:
    """Inches that a forest plot of these rows needs."""
    return 1.1 + 0.2 * sum(1 + wrapped(label).count("\n") for label in labels) + 0.12 * len(labels)


Interval = tuple[float, float, float]  # estimate, low, high


def forest(
    axes: Axes, labels: Sequence[str], lines: Sequence[tuple[str, str, Sequence[Interval]]], null: float
) -> None:
    """One row a label, from the top; lines: (name, colour, (estimate, low, high) of each row), NaN where there is none.

    null: the value of no effect, drawn as a line.
    """
    axes.axvline(null, color=INK, lw=0.9)
    rows = np.arange(len(labels), dtype=float)
    for index, (name, colour, values) in enumerate(lines):
        y = rows + (index - (len(lines) - 1) / 2) * 0.22
        for place, (_, low, high) in zip(y, values, strict=True):
            if low == low:
                axes.plot([low, high], [place, place], color=colour, lw=1.8)
        marker = VARIANT_MARKERS[index % len(VARIANT_MARKERS)]
        axes.plot([v[0] for v in values], y, marker, color=colour, ms=6, mec=PAPER, mew=0.8, label=name, ls="none")
    axes.set_yticks(rows, [wrapped(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")


def bars(
    axes: Axes, x: NDArray[np.float64], rows: Sequence[Level | Estimate], centre: Sequence[float], arm: str
) -> None:
    colour = ARM_COLOUR[arm]
    for place, row in zip(x, rows, strict=True):
        if not np.isnan(row.low):
            axes.plot([place, place], [row.low, row.high], color=colour, lw=1.8, zorder=3)
    axes.plot(
        x, centre, ARM_MARKER[arm], color=colour, ms=7, mec=PAPER, mew=0.9, zorder=4, label=arm,
        linestyle=ARM_LINE[arm] if arm != "treated" else "none", lw=1.1,
    )  # fmt: skip


def points(axes: Axes, x: NDArray[np.float64], y: Sequence[float], arm: str) -> None:
    """Single seeds, faintly beside their mean."""
    axes.plot(x, y, ARM_MARKER[arm], color=ARM_COLOUR[arm], ms=3.4, alpha=0.5, mew=0, linestyle="none", zorder=3)


def dose_colours(doses: Sequence[int]) -> list[str]:
    """Grey for the holdout, then from blue to yellow, rising in lightness; mid-tones that show on light and dark."""
    positive = sum(1 for d in doses if d)
    shades = [matplotlib.colors.to_hex(c) for c in _RAMP(np.linspace(0, 1, positive) if positive > 1 else [0.3])]
    return (["#9a9da3"] if 0 in doses else []) + shades[:positive]
