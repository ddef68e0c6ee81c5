"""Pictures of the runs: loss of the arms on top of each other and their difference, and where edits were placed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pretrain_exp.analysis.study import ARMS, StudyData
from pretrain_exp.report.axes import dose_colours
from pretrain_exp.report.pictures import ARM_COLOUR, ARM_LINE, INK, Picture, slug, table

Run = tuple[str, int]  # member, seed
Curve = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps, values
OTHERS = {"train/grad_norm": "gradient norm", "train/lr": "learning rate"}


def training_pictures(study: StudyData) -> Iterator[Picture]:
    yield from _loss(study.curves)
    yield from _others(study.curves)
    planted = study.ledger.filter(pc.equal(study.ledger["status"], "planted")) if len(study.ledger) else study.ledger
    insertions = sorted(set(planted["insertion"].to_pylist()))
    for insertion in insertions:
        yield _placement(planted.filter(pc.equal(planted["insertion"], insertion)), insertion, len(insertions) > 1)


def _curves(curves: pa.Table, metric: str) -> dict[str, dict[Run, Curve]]:
    chosen = curves.filter(pc.equal(curves["metric"], metric)).sort_by([("step", "ascending")])
    arm, member, seed = (np.asarray(chosen[name].to_pylist()) for name in ("arm", "member", "seed"))
    step, value = chosen["step"].to_numpy(), chosen["value"].to_numpy()
    found: dict[str, dict[Run, Curve]] = {}
    for name in ARMS:
        for run in sorted({(str(m), int(s)) for m, s in zip(member[arm == name], seed[arm == name], strict=True)}):
            mask = (arm == name) & (member == run[0]) & (seed == run[1])
            found.setdefault(name, {})[run] = step[mask], value[mask]
    return found


def _mean(curves: Sequence[Curve]) -> Curve:
    """Mean over the runs that have a value at a step."""
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


def _loss(curves: pa.Table) -> Iterator[Picture]:
    arms = _curves(curves, "train/loss")
    if not arms:
        return
    shared = [run for run in arms.get("treated", {}) if run in arms.get("control", {})]
    differences = {
        arm: [_difference(arms[arm][run], arms["control"][run]) for run in arms[arm] if run in arms["control"]]
        for arm in ("treated", "placebo")
        if arm in arms and "control" in arms
    }
    differences = {arm: found for arm, found in differences.items() if found}

    def draw(axes: Sequence[Axes]) -> None:
        for arm in ("control", "placebo", "treated"):
            runs = list(arms.get(arm, {}).values())
            for steps, values in runs if len(runs) > 1 else ():
                axes[0].plot(steps, values, color=ARM_COLOUR[arm], lw=0.5, alpha=0.25)
            if runs:
                axes[0].plot(*_mean(runs), color=ARM_COLOUR[arm], ls=ARM_LINE[arm], lw=1.4, label=arm, alpha=0.9)
        axes[0].set_ylabel("training loss\n[nats per token]")
        axes[0].legend(loc="upper right", ncols=3)
        if differences:
            axes[1].axhline(0, color=INK, lw=0.9)
        for arm, found in differences.items():
            mean = _mean(found)
            axes[1].plot(*mean, color=ARM_COLOUR[arm], lw=0.5, alpha=0.4)
            axes[1].plot(*_smooth(mean), color=ARM_COLOUR[arm], ls=ARM_LINE[arm], lw=1.5)
        if differences:
            axes[1].set_ylabel("difference\nto control")
            magnitude = [np.quantile(np.abs(_mean(found)[1]), 0.99) for found in differences.values()]
            limit = 1.3 * max(magnitude) or 1.0
            axes[1].set_ylim(-limit, limit)
        axes[-1].set_xlabel("step")

    data = [
        {"arm": arm, "member": member, "seed": seed, "step": int(s), "loss": float(v)}
        for arm, runs in arms.items()
        for (member, seed), (steps, values) in runs.items()
        for s, v in zip(steps, values, strict=True)
    ]
    below = (
        f" Below: difference to control in the same seed, mean of {len(shared)}, with a running mean."
        if differences
        else ""
    )
    yield Picture(
        "loss",
        "training",
        "Training loss of the arms",
        f"Mean over runs; thin lines: each run.{below} The loss of the treated arm is on text that holds the edits.",
        table(data, ("arm", "member", "seed", "step", "loss")),
        draw,
        heights=(2.9, 1.6) if differences else (3.4,),
    )


def _others(curves: pa.Table) -> Iterator[Picture]:
    found = {metric: arms for metric in OTHERS if (arms := _curves(curves, metric))}
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

    data = [
        {"metric": metric, "arm": arm, "member": member, "seed": seed, "step": int(s), "value": float(v)}
        for metric, arms in found.items()
        for arm, runs in arms.items()
        for (member, seed), (steps, values) in runs.items()
        for s, v in zip(steps, values, strict=True)
    ]
    yield Picture(
        "optimizer", "training", "Gradient norm and learning rate", "Mean over runs. Both arms follow one schedule.",
        table(data, ("metric", "arm", "member", "seed", "step", "value")), draw, columns=len(found), heights=(2.5,),
    )  # fmt: skip


def _placement(ledger: pa.Table, insertion: str, several: bool) -> Picture:
    step, dose = ledger["step"].to_numpy(), ledger["dose"].to_numpy()
    doses = sorted(set(dose.tolist()))
    bins = np.unique(np.linspace(step.min(), step.max() + 1, min(41, int(np.ptp(step)) + 2)).astype(int))
    counts = [np.histogram(step[dose == d], bins)[0] for d in doses]

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        base = np.zeros(len(bins) - 1)
        for d, colour, count in zip(doses, dose_colours(doses), counts, strict=True):
            axes.bar(bins[:-1], count, np.diff(bins), base, align="edge", color=colour, label=f"{d:,}", lw=0)
            base = base + count
        axes.set_xlabel("step")
        axes.set_ylabel("edits")
        axes.set_ylim(0, 1.05 * base.max())
        axes.legend(title="times", loc="center left", bbox_to_anchor=(1.01, 0.5), reverse=True)

    data = [
        {"insertion": insertion, "dose": int(d), "first_step": int(a), "stop_step": int(b), "edits": int(n)}
        for d, count in zip(doses, counts, strict=True)
        for a, b, n in zip(bins[:-1], bins[1:], count, strict=True)
    ]
    runs = len({*zip(ledger["member"].to_pylist(), ledger["seed"].to_pylist(), strict=True)})
    return Picture(
        slug("placement", insertion if several else ""),
        "changed",
        f"Where edits were placed{f' ({insertion})' if several else ''}",
        f"{len(step):,} edits over the steps, by how often their item was planted"
        + (f"; {runs} plans together." if runs > 1 else "."),
        table(data, ("insertion", "dose", "first_step", "stop_step", "edits")),
        draw,
        heights=(2.7,),
    )
