"""Pictures by dose: levels of every arm with the fitted curve, effects against control, single items, variants, steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.effects import Cell
from pretrain_exp.analysis.estimate import Estimate, to_table
from pretrain_exp.analysis.levels import Level
from pretrain_exp.analysis.metrics import metric
from pretrain_exp.analysis.scores import Series
from pretrain_exp.analysis.study import ARMS
from pretrain_exp.report.pictures import (
    ARM_COLOUR, ARM_LINE, ARM_MARKER, FAINT, INK, PAPER, VARIANT_COLOURS, VARIANT_MARKERS, Picture, slug, table,
)  # fmt: skip

SHOWN = ("acc", "gold_ce")  # drawn; all metrics are in the tables
MOST_POINTS = 4000
Place = tuple[str, str, str, str]  # panel, insertion, evaluation, task


def dose_pictures(analysis: Analysis) -> Iterator[Picture]:
    """In the order of the report; names carry panel, insertion and task only where there are several."""
    places = list(dict.fromkeys((r.panel, r.insertion, r.evaluation, r.task) for r in analysis.levels))
    for place in places:
        metrics = _metrics([r.metric for r in analysis.levels if _place(r) == place])
        for name in metrics:
            yield from _dose_response(analysis, place, name, _suffix(place, places))
        yield from _effects(analysis, place, metrics, _suffix(place, places))
        yield from _items(analysis, place, _suffix(place, places))
        yield from _steps(analysis, place, metrics, _suffix(place, places))
    if len({place[0] for place in places}) > 1:
        for place in dict.fromkeys(place[1:] for place in places):
            yield from _variants(analysis, place, slug(*place) if len({p[1:] for p in places}) > 1 else "")


def _metrics(names: Sequence[str]) -> list[str]:
    return [m for m in SHOWN if m in names] or list(dict.fromkeys(names))[:1]


def _place(row: Level | Estimate) -> Place:
    return row.panel, row.insertion, row.evaluation, row.task


def _suffix(place: Place, places: Sequence[Place]) -> str:
    return slug(*(part for i, part in enumerate(place) if len({p[i] for p in places}) > 1))


def _where(place: Sequence[str], suffix: str) -> str:
    return f" ({', '.join(part for part in place if part)})" if suffix else ""


def at(dose: float | Sequence[float] | np.ndarray) -> np.ndarray:
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


def _bars(axes: Axes, x: np.ndarray, rows: Sequence[Level] | Sequence[Estimate], centre: Sequence[float], arm: str) -> None:
    colour = ARM_COLOUR[arm]
    for place, row in zip(x, rows, strict=True):
        if not np.isnan(row.low):
            axes.plot([place, place], [row.low, row.high], color=colour, lw=1.8, zorder=3)
    axes.plot(
        x, centre, ARM_MARKER[arm], color=colour, ms=7, mec=PAPER, mew=0.9, zorder=4, label=arm,
        linestyle=ARM_LINE[arm] if arm != "treated" else "none", lw=1.1,
    )  # fmt: skip


def _dose_response(analysis: Analysis, place: Place, name: str, suffix: str) -> Iterator[Picture]:
    rows = [r for r in analysis.levels if _place(r) == place and r.metric == name]
    doses = sorted({r.dose for r in rows})
    if len(doses) < 2:
        return
    several = any(r.seed is None for r in rows)
    means = [r for r in rows if (r.seed is None) == several]
    fit = next((f for f in analysis.responses if (f.panel, f.insertion, *f.series) == (*place, name)), None)
    m = metric(name, True)
    binary = analysis.design.scores.binary[Series(place[2], place[3], name)]

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        spread = 0.016 * float(at(doses[-1]))
        arms = [arm for arm in ARMS if any(r.arm == arm for r in means)]
        if fit and not fit.fit.flag:
            curve = np.expm1(np.linspace(0, at(doses[-1]), 200))
            axes.plot(at(curve), fit.fit.predict(curve), color=ARM_COLOUR["treated"], lw=1.6, alpha=0.75, zorder=2)
        for index, arm in enumerate(arms):
            shift = (index - (len(arms) - 1) / 2) * spread
            chosen = [r for r in means if r.arm == arm]
            if several:
                single = [r for r in rows if r.arm == arm and r.seed is not None]
                axes.plot(
                    at([r.dose for r in single]) + shift, [r.mean for r in single], ARM_MARKER[arm],
                    color=ARM_COLOUR[arm], ms=3.6, alpha=0.4, mew=0, linestyle="none", zorder=3,
                )  # fmt: skip
            _bars(axes, at([r.dose for r in chosen]) + shift, chosen, [r.mean for r in chosen], arm)
        if binary:
            shown = [v for r in means for v in (r.low, r.high, r.mean) if not np.isnan(v)]
            axes.set_ylim(max(-0.03, min(0.0, *shown) - 0.03), min(1.03, max(1.0, *shown) + 0.03))
        dose_axis(axes, doses)
        axes.set_ylabel(m.label if binary else f"{m.label}\n[{m.unit}]")
        axes.legend(loc="best", ncols=len(arms))

    unit = f"t intervals over {max(len({r.seed for r in rows}) - 1, 0)} seeds; small points: each seed" if several else means[0].method + "s"
    curve = " Curve: logit fit on log(1 + dose)." if fit and not fit.fit.flag else ""
    counts = sorted({r.n for r in means if r.arm == "treated"})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else "0"
    yield Picture(
        slug("dose_response", name, suffix), "dose_response", f"{m.label.capitalize()} by dose{_where(place, suffix)}",
        f"Mean with 95 % {unit}; n = {n} item scores a point.{curve}",
        table([asdict(r) for r in rows], [f.name for f in fields(Level)]), draw,
    )  # fmt: skip


def _effects(analysis: Analysis, place: Place, metrics: Sequence[str], suffix: str) -> Iterator[Picture]:
    contrasts = {"treated_vs_control": "treated", "placebo_vs_control": "placebo"}
    rows = [r for r in analysis.estimates if _place(r) == place and r.contrast in contrasts and not r.group and r.dose is not None]
    several = any(r.scope == "seeds" for r in rows)
    means = [r for r in rows if r.scope == ("seeds" if several else "run") and r.metric in metrics]
    doses = sorted({r.dose for r in means if r.dose is not None})
    shown = [name for name in metrics if any(r.metric == name for r in means)]
    if not shown:
        return

    def draw(all_axes: Sequence[Axes]) -> None:
        for axes, name in zip(all_axes, shown, strict=True):
            m = metric(name, True)
            axes.axhline(0, color=INK, lw=0.9)
            arms = [arm for contrast, arm in contrasts.items() if any(r.contrast == contrast for r in means)]
            for contrast, arm in contrasts.items():
                chosen = [r for r in means if r.contrast == contrast and r.metric == name]
                if not chosen:
                    continue
                shift = (arms.index(arm) - (len(arms) - 1) / 2) * 0.03 * float(at(doses[-1]))
                x = at([r.dose or 0 for r in chosen]) + shift
                _bars(axes, x, chosen, [r.estimate for r in chosen], arm)
                single = [r for r in rows if r.contrast == contrast and r.metric == name and r.scope == "run" and several]
                axes.plot(
                    at([r.dose or 0 for r in single]) + shift, [r.estimate for r in single], ARM_MARKER[arm],
                    color=ARM_COLOUR[arm], ms=3.6, alpha=0.4, mew=0, linestyle="none",
                )  # fmt: skip
            if m.scale == 100:
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}".replace("+0", "0").replace("-", "−"))
            dose_axis(axes, doses)
            axes.set_xlabel("times read")
            axes.set_title(f"{m.label}\n[{m.unit}]" if len(shown) > 1 else f"{m.label} [{m.unit}]")
            if len(arms) > 1:
                axes.legend(loc="best")

    method = means[0].method if several or len({r.method for r in means}) == 1 else "intervals over items"
    yield Picture(
        slug("effect", suffix), "effects", f"Effect against control by dose{_where(place, suffix)}",
        f"Difference to control on the same items, 95 % {method}"
        + ("; small points: each seed." if several else "."),
        to_table([r for r in rows if r.metric in shown and r.scope in ("run", "seeds")]), draw, columns=len(shown),
    )  # fmt: skip


def _items(analysis: Analysis, place: Place, suffix: str) -> Iterator[Picture]:
    panel = next(p for p in analysis.design.panels if p.label == place[0])
    series = [s for s in analysis.design.series(panel, place[1]) if s[:2] == place[2:] and not analysis.design.scores.binary[s]]
    series = [s for s in series if s.metric in SHOWN] or series[:1]
    doses = sorted({d for u in panel.units for d in analysis.design.doses.of(u, place[1])})
    if not series:
        return
    points = []
    for unit in panel.units:
        for dose in doses:
            pair = analysis.design.pair(series[0], unit, ("treated", "control"), Cell(place[1], "", dose))
            points += [
                {"member": unit.member, "seed": unit.seed, "item": item, "dose": dose, "control": y, "treated": x}
                for item, x, y in zip(analysis.design.scores.items[pair.item].tolist(), pair.first, pair.second, strict=True)
            ]
    if not points:
        return
    chosen = points
    if len(points) > MOST_POINTS:
        keep = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        chosen = [points[i] for i in sorted(keep)]
    m = metric(series[0].metric)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        ends = [min(min(p["control"], p["treated"]) for p in chosen), max(max(p["control"], p["treated"]) for p in chosen)]
        axes.plot(ends, ends, color=INK, lw=0.9, ls="--", zorder=1)
        for dose, colour in zip(doses, dose_colours(doses), strict=True):
            mine = [p for p in chosen if p["dose"] == dose]
            axes.plot(
                [p["control"] for p in mine], [p["treated"] for p in mine], "o", color=colour, ms=3.8, alpha=0.55, mew=0,
                label="holdout" if dose == 0 else f"{dose:,} times",
            )  # fmt: skip
        axes.set_xlabel(f"{m.label} in control [{m.unit}]")
        axes.set_ylabel("the same item in treated")
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(True, axis="both")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=1.5)

    sample = f" A seeded sample of {MOST_POINTS:,} of {len(points):,}." if len(chosen) < len(points) else ""
    yield Picture(
        slug("items", series[0].metric, suffix), "effects", f"Every item in both arms{_where(place, suffix)}",
        f"{m.label.capitalize()}, one point an item and seed; on the line nothing changed.{sample}",
        pa.Table.from_pylist(points), draw, heights=(4.4,),
    )  # fmt: skip


def dose_colours(doses: Sequence[int]) -> list[str]:
    """Grey for the holdout, then from dark to light (viridis, its ends left out so that both grounds show all)."""
    positive = max(1, sum(1 for d in doses if d))
    shades = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["plasma"](np.linspace(0.1, 0.8, positive))]
    return (["#9a9da3"] if 0 in doses else []) + shades[: sum(1 for d in doses if d)]


def _steps(analysis: Analysis, place: Place, metrics: Sequence[str], suffix: str) -> Iterator[Picture]:
    rows = [r for r in analysis.trajectories if _place(r) == place and r.metric == metrics[0]]
    several = any(r.seed is None for r in rows)
    means = [r for r in rows if (r.seed is None) == several]
    if not means:
        return
    doses = sorted({r.dose for r in means})
    m = metric(metrics[0], True)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        for arm in ("control", "treated"):
            for dose, colour in zip(doses, dose_colours(doses), strict=True):
                mine = [r for r in means if r.arm == arm and r.dose == dose]
                label = f"{'holdout' if dose == 0 else f'{dose:,} times'}" if arm == "treated" else None
                axes.plot(
                    [r.step for r in mine], [r.mean for r in mine], ARM_MARKER[arm] + ARM_LINE[arm], color=colour,
                    lw=1.7 if arm == "treated" else 1.0, ms=4 if arm == "treated" else 2.5, label=label,
                )  # fmt: skip
        axes.plot([], [], color=FAINT, ls=ARM_LINE["control"], label="control")
        axes.set_xlabel("step")
        axes.set_ylabel(m.label)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    yield Picture(
        slug("steps", metrics[0], suffix), "dose_response", f"{m.label.capitalize()} over training{_where(place, suffix)}",
        "Mean by dose at every step that was evaluated; dashed: the same items in control.",
        table([asdict(r) for r in rows], [f.name for f in fields(Level)]), draw,
    )  # fmt: skip


def _variants(analysis: Analysis, place: Sequence[str], suffix: str) -> Iterator[Picture]:
    rows = [
        r for r in analysis.estimates
        if (r.insertion, r.evaluation, r.task) == tuple(place) and r.contrast == "treated_vs_control"
        and not r.group and r.dose is not None and r.scope in ("run", "seeds")
    ]  # fmt: skip
    several = any(r.scope == "seeds" for r in rows)
    names = _metrics([r.metric for r in rows])[:1]
    means = [r for r in rows if r.scope == ("seeds" if several else "run") and r.metric in names]
    if not means:
        return
    doses = sorted({r.dose for r in means if r.dose is not None})
    labels = list(dict.fromkeys(r.panel for r in means))
    m = metric(names[0], True)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        axes.axhline(0, color=INK, lw=0.9)
        for index, label in enumerate(labels):
            mine = [r for r in means if r.panel == label]
            colour = VARIANT_COLOURS[index % len(VARIANT_COLOURS)]
            x = at([r.dose or 0 for r in mine]) + (index - (len(labels) - 1) / 2) * 0.02 * float(at(doses[-1]))
            for place, row in zip(x, mine, strict=True):
                axes.plot([place, place], [row.low, row.high], color=colour, lw=1.6)
            marker = VARIANT_MARKERS[index % len(VARIANT_MARKERS)]
            axes.plot(x, [r.estimate for r in mine], marker + "-", color=colour, lw=1.0, ms=6, label=label)
        dose_axis(axes, doses)
        axes.set_ylabel(f"treated − control in {m.label}")
        axes.legend(loc="best")

    yield Picture(
        slug("variants", names[0], suffix), "effects", f"Effect by variant{_where(place, suffix)}",
        f"{m.label.capitalize()}, difference to control on the same items, 95 % {means[0].method}.", to_table(means), draw,
    )  # fmt: skip
