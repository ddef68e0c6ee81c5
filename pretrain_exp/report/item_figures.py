"""Pictures below the means: every item in both arms, and scores over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.levels import Level
from pretrain_exp.analysis.metrics import shown_metrics
from pretrain_exp.report.axes import Place, dose_colours, level_label, named, place_of, times_read
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.pictures import ARM_LINE, ARM_MARKER, FAINT, INK, Picture, slug, table

MOST_POINTS = 4000


def every_item(analysis: Analysis, place: Place, own: Sequence[str]) -> Iterator[Picture]:
    panel = next(p for p in analysis.design.panels if p.label == place[0])
    series = [
        s
        for s in analysis.design.series(panel, place[1])
        if s[:2] == place[2:] and not analysis.design.scores.binary[s]
    ]
    known = shown_metrics(s.metric for s in series)
    series = [s for s in series if s.metric in known]
    if not series:
        return
    cells = [cell for cell in analysis.design.cells(panel, place[1], series[0]) if cell.main]
    doses = [cell.dose for cell in cells]
    points = []
    for unit in panel.units:
        for cell in cells:
            pair = analysis.design.each(series[0], unit, ("treated", "control"), cell)
            points += [
                {"member": unit.member, "seed": unit.seed, "item": item, "dose": cell.dose, "control": y, "treated": x}
                for item, x, y in zip(
                    analysis.design.scores.items[pair.item].tolist(), pair.first, pair.second, strict=True
                )
            ]
    if not points:
        return
    chosen = points
    if len(points) > MOST_POINTS:
        keep = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        chosen = [points[i] for i in sorted(keep)]
    m = analysis.design.scores.metric(series[0].metric)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        start = min(p["control"] for p in chosen)
        axes.axline((start, start), slope=1, color=INK, lw=0.9, ls="--", zorder=1)
        for dose, colour in zip(doses, dose_colours(doses), strict=True):
            mine = [p for p in chosen if p["dose"] == dose]
            axes.plot(
                [p["control"] for p in mine],
                [p["treated"] for p in mine],
                "o",
                color=colour,
                ms=3.8,
                alpha=0.75,
                mew=0,
                label=times_read(dose, cells[0].group),
            )
        axes.set_xlabel(f"{level_label(m, ' ')} in control")
        axes.set_ylabel("the same item in treated")
        axes.grid(True, axis="both")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=1.5)

    sample = f" A seeded sample of {MOST_POINTS:,} of {len(points):,}." if len(chosen) < len(points) else ""
    yield Picture(
        slug("items", series[0].metric, *own), "effects", f"Every item in both arms{named(own)}",
        f"{m.label.capitalize()}, one point an item and seed; on the dashed line nothing changed.{sample}",
        pa.Table.from_pylist(points), draw, heights=(4.4,),
    )  # fmt: skip


def over_steps(analysis: Analysis, place: Place, metrics: Sequence[str], own: Sequence[str]) -> Iterator[Picture]:
    rows = [r for r in analysis.trajectories if place_of(r) == place and r.metric == metrics[0]]
    means = main_rows(rows, lambda r: (r.arm, r.dose))
    if not means:
        return
    doses = sorted({r.dose for r in means})
    m = analysis.design.scores.metric(metrics[0])

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        for arm in ("control", "treated"):
            for dose, colour in zip(doses, dose_colours(doses), strict=True):
                mine = [r for r in means if r.arm == arm and r.dose == dose]
                label = times_read(dose, means[0].group) if arm == "treated" else None
                axes.plot(
                    [r.step or 0 for r in mine], [r.mean for r in mine], ARM_MARKER[arm] + ARM_LINE[arm], color=colour,
                    lw=1.7 if arm == "treated" else 1.0, ms=4 if arm == "treated" else 2.5, label=label,
                )  # fmt: skip
        axes.plot([], [], color=FAINT, ls=ARM_LINE["control"], label="control")
        axes.set_xlabel("step")
        axes.set_ylabel(level_label(m))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    yield Picture(
        slug("steps", metrics[0], *own), "dose_response", f"{m.label.capitalize()} over training{named(own)}",
        "Mean by dose at every step that was evaluated, over seeds where there are several; dashed: the same items in "
        "control. Intervals are in the CSV.",
        table([asdict(r) for r in rows], [f.name for f in fields(Level)]), draw,
    )  # fmt: skip
