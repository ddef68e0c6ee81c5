"""What two runs without any edit differ by: the floors of a study in, a picture for each metric that is best known out.

A row a task; a point for each two runs, both ways round, and a line over what one treated and one control run differ by
where the edits do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from matplotlib.axes import Axes

from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.noise_floor import Floor, best_known
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import Scores
from pretrain_exp.report.axes import difference_axis, forest, forest_height
from pretrain_exp.report.pictures import ARM_COLOUR, FAINT, Picture, slug, table

COLUMNS = ("member", "evaluation", "task", "metric", "first", "second", "difference")


def floor_pictures(floors: Sequence[Floor], scores: Scores) -> Iterator[Picture]:
    """Metrics whose runs are all equal are not drawn: there is no noise to see."""
    found: dict[str, list[Floor]] = {}
    for floor in best_known(floors):
        if floor.sd_runs > 0:
            found.setdefault(floor.metric, []).append(floor)
    for name, mine in found.items():
        m = scores.metric(name)
        rows = [row for floor in mine for row in differences(floor)]
        names = [", ".join(filter(None, (short_variant(floor.member), floor.task))) for floor in mine]
        yield Picture(
            slug("noise_floor", name), "noise", f"What two runs without any edit differ by: {m.label}",
            "Points: each two runs, both ways round. Line: 95 % interval of the difference of two runs, t with their "
            "spread; an effect between one treated and one control run inside it cannot be told from noise.",
            table(rows, COLUMNS),
            lambda axes, mine=mine, names=names, m=m: _draw(axes[0], mine, names, m),  # type: ignore[misc]
            heights=(forest_height(names),),
        )  # fmt: skip


def differences(floor: Floor) -> list[dict[str, Any]]:
    """first, second: of the runs, by their number; difference: mean of the first less that of the second."""
    return [
        {"member": floor.member, "evaluation": floor.evaluation, "task": floor.task, "metric": floor.metric,
         "first": i, "second": j, "difference": floor.means[i] - floor.means[j]}
        for i, j in permutations(range(floor.runs), 2)
    ]  # fmt: skip


def _draw(axes: Axes, floors: Sequence[Floor], names: Sequence[str], m: Metric) -> None:
    lines = [(math.nan, -floor.two_runs, floor.two_runs) for floor in floors]
    forest(axes, names, [("", FAINT, lines)], 0.0)
    for place, floor in enumerate(floors):
        values = [row["difference"] for row in differences(floor)]
        axes.plot(
            values,
            [place] * len(values),
            "o",
            color=ARM_COLOUR["control"],
            ms=5,
            alpha=0.55,
            mew=0,
            ls="none",
            zorder=4,
        )
    difference_axis(axes.xaxis, m)
    axes.set_xlabel(f"run − run, {m.with_unit()}")
