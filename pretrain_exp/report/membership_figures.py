"""Pictures of membership attacks: AUC and TPR by dose, and by condition. Rows of one place in, pictures out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.axes import Axes

from pretrain_exp.analysis.findings import rows_to_table
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.separations import MINUS, Separated
from pretrain_exp.report.axes import at, dose_axis, forest, forest_height, named, times_read
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.pictures import ARM_COLOUR, FAINT, INK, VARIANT_COLOURS, VARIANT_MARKERS, Picture, slug
from pretrain_exp.report.rows import seed_of

SCORES_COLOUR = {"treated": ARM_COLOUR["treated"], MINUS: ARM_COLOUR["placebo"], "control": ARM_COLOUR["control"]}


Named = Callable[[str], Metric]


def membership_pictures(rows: list[Separated], own: list[str], metric: Named) -> Iterator[Picture]:
    """own: what tells the place of these rows from others; metric: of a name, as the study's scores say."""
    yield from _membership(rows, own, metric)
    yield from _conditions(rows, own, metric)


def _membership(rows: list[Separated], own: list[str], metric: Named) -> Iterator[Picture]:
    """AUC and TPR by dose, a line an attack; the control's AUC in grey says what the items give away by themselves."""
    plain = [row for row in rows if not row.group]
    shown = main_rows(plain, lambda row: (row.metric, row.dose, row.scores, row.measure, row.fpr))
    seeds = {row.seed for row in shown} - {None}
    if len(seeds) > 1:  # no mean over them: the first stands for all
        shown = [row for row in shown if row.seed in (None, min(seed for seed in seeds if seed is not None))]
    metrics = list(dict.fromkeys(row.metric for row in shown))
    doses = sorted({row.dose for row in shown})

    def draw(all_axes: Sequence[Axes]) -> None:
        for axes, (measure, fpr) in zip(all_axes, (("auc", None), ("tpr", 0.01)), strict=True):
            axes.axhline(fpr or 0.5, color=INK, lw=0.9)
            for index, name in enumerate(metrics):
                colour = VARIANT_COLOURS[index % len(VARIANT_COLOURS)]
                marker = VARIANT_MARKERS[index % len(VARIANT_MARKERS)]
                for scores in ("treated", "control"):
                    mine = [r for r in shown if (r.metric, r.scores, r.measure, r.fpr) == (name, scores, measure, fpr)]
                    x = at([r.dose for r in mine]) + (index - (len(metrics) - 1) / 2) * 0.018 * float(at(doses[-1]))
                    y = [r.estimate for r in mine]
                    if scores == "control":
                        axes.plot(x, y, marker + ":", color=FAINT, lw=0.9, ms=3.5)
                        continue
                    for place, row in zip(x, mine, strict=True):
                        if row.low == row.low:
                            axes.plot([place, place], [row.low, row.high], color=colour, lw=1.5)
                    axes.plot(x, y, marker + "-", color=colour, lw=1.1, ms=5.5, label=metric(name).label)
            dose_axis(axes, doses)
            axes.set_xlabel("times read")
            axes.set_title("AUC" if measure == "auc" else "TPR at 1 % FPR")
            axes.set_ylim(*_padded(axes.get_ylim(), 1.02))
        all_axes[0].plot([], [], ":", color=FAINT, lw=0.9, label="in control")
        all_axes[0].legend(loc="best", fontsize=8)

    method = next((row.method for row in shown if row.measure == "auc"), "")
    yield Picture(
        slug("membership", *own), "membership", f"Membership attacks by dose{named(own)}",
        f"Texts of each dose against holdout texts, 95 % {method}. Grey: the same texts in the control.",
        rows_to_table(shown), draw, columns=2,
    )  # fmt: skip


def _padded(limits: tuple[float, float], most: float) -> tuple[float, float]:
    return max(-0.02, limits[0]), min(most, limits[1])


def _conditions(rows: list[Separated], own: list[str], metric: Named) -> Iterator[Picture]:
    """AUC by condition: treated, treated − control, control; of the first attack."""
    first = next((row.metric for row in rows if row.group), None)
    mine = [row for row in rows if row.group and row.metric == first and row.measure == "auc"]
    if first is None:
        return
    shown = main_rows(mine, lambda row: (row.group, row.dose, row.scores))
    keys = sorted({(row.group, row.dose, -1 if row.seed is None else row.seed) for row in shown})
    labels = [f"{group}, {times_read(dose)}" + seed_of(None if seed < 0 else seed, shown) for group, dose, seed in keys]
    by = {(row.group, row.dose, -1 if row.seed is None else row.seed, row.scores): row for row in shown}
    nan = float("nan")
    lines = []
    for scores, colour in SCORES_COLOUR.items():
        found = [by.get((*key, scores)) for key in keys]
        values = [(nan, nan, nan) if row is None else (row.estimate, row.low, row.high) for row in found]
        lines.append((scores, colour, values))

    def draw(all_axes: Sequence[Axes]) -> None:
        forest(all_axes[0], labels, lines, 0.5)
        all_axes[0].set_xlim(*_padded(all_axes[0].get_xlim(), 1.02))
        all_axes[0].set_xlabel(f"AUC of {metric(first).label}")
        all_axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    yield Picture(
        slug("membership-conditions", *own), "membership", f"Membership by condition{named(own)}",
        f"{metric(first).label}, 95 % {shown[0].method}. Treated − control takes the difficulty of each text out; "
        "the control shows what the texts give away by themselves.",
        rows_to_table(shown), draw, heights=(forest_height(labels) + 0.5,),
    )  # fmt: skip
