"""How doses, arms and places are named and drawn, the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.levels import Level
from pretrain_exp.analysis.metrics import HEADLINE, Metric
from pretrain_exp.report.pictures import ARM_COLOUR, ARM_LINE, ARM_MARKER, PAPER

Place = tuple[str, str, str, str]  # panel, insertion, evaluation, task
_RAMP = matplotlib.colors.LinearSegmentedColormap.from_list(
    "dose", ["#4f63d2", "#a65fc4", "#e0667f", "#f09a4a", "#e3bd3a"]
)


def shown_metrics(names: Sequence[str]) -> list[str]:
    return [m for m in HEADLINE if m in names] or list(dict.fromkeys(names))[:1]


def place_of(row: Level | Estimate) -> Place:
    return row.panel, row.insertion, row.evaluation, row.task


def which(place: Sequence[str], places: Sequence[Sequence[str]]) -> list[str]:
    """What tells this place from the others: "" parts and those that all share are left out."""
    return [part for i, part in enumerate(place) if part and len({p[i] for p in places}) > 1]


def named(own: Sequence[str]) -> str:
    return f" ({', '.join(own)})" if own else ""


def plural(method: str) -> str:
    return method.replace("interval", "intervals", 1)


def times_read(dose: int) -> str:
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


def difference_axis(axes: Axes, m: Metric) -> None:
    """Differences in points, with their signs, where the metric is a proportion."""
    if m.scale == 100:
        axes.yaxis.set_major_formatter(lambda value, _: m.difference(value).removesuffix(".0"))


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
