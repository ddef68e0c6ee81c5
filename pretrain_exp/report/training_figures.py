"""Pictures of the runs: loss of the arms on top of each other and their difference, and where edits were placed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pretrain_exp.analysis.design import Panel
from pretrain_exp.analysis.exposures import of_facts
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import Unit, control_of
from pretrain_exp.analysis.study import ARMS, StudyData
from pretrain_exp.report.axes import dose_colours, say_cut, wrapped
from pretrain_exp.report.pictures import ARM_COLOUR, ARM_LINE, INK, VARIANT_COLOURS, Picture, slug, table

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps, values
MOST_POINTS = 600  # of a curve
OTHERS = {"train/grad_norm": "gradient norm", "train/lr": "learning rate"}


def training_pictures(study: StudyData, panels: Sequence[Panel] = ()) -> Iterator[Picture]:
    """panels: what is analysed apart is drawn apart."""
    variant = {unit.member: panel.label for panel in panels for unit in panel.units}
    yield from _loss(study.curves, variant)
    yield from _others(study.curves)
    planted = of_facts(study.ledger.filter(pc.equal(study.ledger["status"], "planted")))
    insertions = sorted(pc.unique(planted["insertion"]).to_pylist())
    for insertion in insertions:
        mine = planted.filter(pc.equal(planted["insertion"], insertion))
        yield _placement(mine, insertion, len(insertions) > 1, variant)


def _curves(curves: pa.Table, metric: str) -> tuple[dict[str, dict[Unit, Curve]], int]:
    """arm -> run -> (steps, values), and how many steps a point stands for: runs of many steps are averaged in bins."""
    chosen = curves.filter(pc.equal(curves["metric"], metric))
    step, value = chosen["step"].to_numpy(), chosen["value"].to_numpy()
    width = int(np.ptp(step)) // MOST_POINTS + 1 if len(step) else 1
    arm, member, seed = (np.asarray(chosen[name].to_pylist()) for name in ("arm", "member", "seed"))
    found: dict[str, dict[Unit, Curve]] = {}
    for name in ARMS:
        for run in sorted({Unit(str(m), int(s)) for m, s in zip(member[arm == name], seed[arm == name], strict=True)}):
            mask = (arm == name) & (member == run[0]) & (seed == run[1])
            found.setdefault(name, {})[run] = _mean([(step[mask] // width * width, value[mask])])
    return found, width


def _mean(curves: Sequence[Curve]) -> Curve:
    """Mean at each step, over the curves that have a value there."""
    steps, where = np.unique(np.concatenate([c[0] for c in curves]), return_inverse=True)
    total = np.bincount(where, np.concatenate([c[1] for c in curves]))
    return steps, total / np.bincount(where)


def _difference(treated: Curve, control: Curve) -> Curve:
    steps, i, j = np.intersect1d(treated[0], control[0], return_indices=True)
    return steps, treated[1][i] - control[1][j]


def _smooth(curve: Curve) -> Curve:
    """Centred running mean over a fiftieth of the curve; its ends, where the window is cut, are left out."""
    width = max(1, len(curve[0]) // 50) | 1
    half = width // 2
    smooth = np.convolve(curve[1], np.full(width, 1 / width), "valid")
    return curve[0][half : len(curve[0]) - half], smooth


def _each(width: int) -> str:
    return f" Every point is the mean of {width:,} steps." if width > 1 else ""


def _loss(curves: pa.Table, variant: Mapping[str, str]) -> Iterator[Picture]:
    arms, width = _curves(curves, "train/loss")
    if not arms:
        return
    differences: dict[tuple[str, str], list[Curve]] = {}  # by arm and variant
    for arm in ("treated", "placebo"):
        for run, curve in arms.get(arm, {}).items():
            controls = arms.get("control", {})
            if (control := control_of(run, list(controls))) is not None:
                key = arm, variant.get(run.member, run.member)
                differences.setdefault(key, []).append(_difference(curve, controls[control]))
    drawn = {label for _, label in differences}
    variants = [label for label in dict.fromkeys((*variant.values(), *drawn)) if label in drawn]
    several = len(variants) > 1

    def colour_of(arm: str, label: str) -> str:
        return VARIANT_COLOURS[variants.index(label) % len(VARIANT_COLOURS)] if several else ARM_COLOUR[arm]

    def draw(axes: Sequence[Axes]) -> None:
        for arm in ("control", "placebo", "treated"):
            runs = list(arms.get(arm, {}).values())
            for steps, values in runs if len(runs) > 1 else ():
                axes[0].plot(steps, values, color=ARM_COLOUR[arm], lw=0.5, alpha=0.25)
            if runs:
                axes[0].plot(*_mean(runs), color=ARM_COLOUR[arm], ls=ARM_LINE[arm], lw=1.4, label=arm, alpha=0.9)
        axes[0].set_ylabel("training loss\n[nats per token]")
        axes[0].legend(loc="upper right", ncols=3)
        axes[-1].set_xlabel("step")
        if not differences:
            return
        axes[1].axhline(0, color=INK, lw=0.9)
        for (arm, label), found in sorted(differences.items(), key=lambda each: variants.index(each[0][1])):
            colour = colour_of(arm, label)
            if not several:
                axes[1].plot(*_mean(found), color=colour, lw=0.5, alpha=0.4)
            name = wrapped(short_variant(label)) if several and arm == "treated" else None
            axes[1].plot(*_smooth(_mean(found)), color=colour, ls=ARM_LINE[arm], lw=1.5, label=name)
        if several:
            axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
        axes[1].set_ylabel("difference\nto control")
        limit = 1.3 * max(np.quantile(np.abs(_mean(found)[1]), 0.99) for found in differences.values()) or 1.0
        axes[1].set_ylim(-limit, limit)
        if any(np.abs(_mean(found)[1]).max() > limit for found in differences.values()):
            say_cut(axes[1], f"cut at ±{limit:.2g}")

    below = " Below: difference to control in the same seed, with a running mean." if differences else ""
    yield Picture(
        "loss", "training", "Training loss of the arms",
        f"Mean over runs; thin lines: each run.{below} The loss of the treated arm is on text that holds the edits."
        + _each(width),
        _data({"train/loss": arms}), draw, heights=(2.9, 1.6) if differences else (3.4,),
    )  # fmt: skip


def _others(curves: pa.Table) -> Iterator[Picture]:
    read = {metric: _curves(curves, metric) for metric in OTHERS}
    found = {metric: arms for metric, (arms, _) in read.items() if arms}
    if not found:
        return

    def draw(axes: Sequence[Axes]) -> None:
        for one, (metric, arms) in zip(axes, found.items(), strict=True):
            for arm in ("control", "placebo", "treated"):
                if arm in arms:
                    mean = _mean(list(arms[arm].values()))
                    one.plot(*mean, color=ARM_COLOUR[arm], ls=ARM_LINE[arm], lw=1.1, label=arm, alpha=0.85)
            one.set_title(OTHERS[metric])
            one.set_xlabel("step")
            one.ticklabel_format(axis="y", scilimits=(-2, 4))
        axes[0].legend(loc="best")

    caption = "Mean over runs. The arms follow one schedule." + _each(max(width for _, width in read.values()))
    yield Picture(
        "optimizer", "training", "Gradient norm and learning rate", caption, _data(found), draw,
        columns=len(found), heights=(2.5,),
    )  # fmt: skip


def _data(metrics: dict[str, dict[str, dict[Unit, Curve]]]) -> pa.Table:
    rows = [
        {"metric": metric, "arm": arm, "member": member, "seed": seed, "step": int(s), "value": float(v)}
        for metric, arms in metrics.items()
        for arm, runs in arms.items()
        for (member, seed), (steps, values) in runs.items()
        for s, v in zip(steps, values, strict=True)
    ]
    return table(rows, ("metric", "arm", "member", "seed", "step", "value"))


def _placement(ledger: pa.Table, insertion: str, several: bool, variant: Mapping[str, str]) -> Picture:
    """A row for each variant that is analysed apart."""
    step, dose = ledger["step"].to_numpy(), ledger["dose"].to_numpy()
    label = np.array([variant.get(member, member) for member in ledger["member"].to_pylist()], dtype=str)
    labels, doses = list(dict.fromkeys(label.tolist())), np.unique(dose).tolist()
    bins = np.unique(np.linspace(step.min(), step.max() + 1, min(41, int(np.ptp(step)) + 2)).astype(int))
    counts = {name: [np.histogram(step[(dose == d) & (label == name)], bins)[0] for d in doses] for name in labels}
    tallest = max(int(np.sum(of, axis=0).max()) for of in counts.values())

    def draw(all_axes: Sequence[Axes]) -> None:
        for axes, name in zip(all_axes, labels, strict=True):
            base = np.zeros(len(bins) - 1)
            for d, colour, count in zip(doses, dose_colours(doses), counts[name], strict=True):
                axes.bar(bins[:-1], count, np.diff(bins), base, align="edge", color=colour, label=f"{d:,}", lw=0)
                base = base + count
            axes.set_ylim(0, 1.05 * tallest)
            axes.set_ylabel("edits")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            if len(labels) > 1:
                axes.set_title(wrapped(short_variant(name) or "(unnamed)", 70), fontsize=9)
        all_axes[-1].set_xlabel("step")
        all_axes[0].legend(title="times", loc="upper left", bbox_to_anchor=(1.01, 1.05), reverse=True)

    data = [
        {
            "variant": name, "insertion": insertion, "dose": int(d), "first_step": int(a), "stop_step": int(b),
            "edits": int(n),
        }
        for name in labels
        for d, count in zip(doses, counts[name], strict=True)
        for a, b, n in zip(bins[:-1], bins[1:], count, strict=True)
    ]  # fmt: skip
    plans = ledger.group_by(["member", "seed"]).aggregate([]).num_rows
    own = insertion if several else ""
    return Picture(
        slug("placement", own), "changed", f"Where edits were placed{f' ({own})' if own else ''}",
        f"{len(step):,} edits over the steps, by how often their item was planted"
        + (f"; {plans} plans together." if plans > 1 else "."),
        table(data, ("variant", "insertion", "dose", "first_step", "stop_step", "edits")), draw,
        heights=(2.7,) if len(labels) == 1 else (1.5,) * len(labels),
    )  # fmt: skip
