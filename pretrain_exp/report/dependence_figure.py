"""The matrix of dependence as a heat map: what each experiment alone, and all together, do to the outcome of each.

A cell is shaded by its size against the diagonal of its column, the experiment's own effect; where that effect itself
cannot be told from none, the column has no shade. In: matrices. Out: a picture for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pretrain_exp.analysis.dependence import ALL, Cell
from pretrain_exp.analysis.matrix import Matrix
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.scores import Scores
from pretrain_exp.report.axes import named
from pretrain_exp.report.pictures import ARM_COLOUR, FAINT, INK, Picture, slug, table

LIMIT = 0.05  # of the adjusted p below which a cell off the diagonal is framed
_DARKEST = 0.75
_SHORT = 18  # letters of a name on the axis


def methods(matrix: Matrix) -> str:
    """How the intervals of its cells were made, and what of them is to be known."""
    said = dict.fromkeys(part for cell in matrix.cells for part in (cell.method, cell.flag) if part)
    return "; ".join(said)


def dependence_pictures(matrices: Sequence[Matrix], scores: Scores) -> Iterator[Picture]:
    """One heat map a panel."""
    for matrix in matrices:
        metrics = [scores.metric(outcome.metric) for outcome in matrix.outcomes]
        own = [matrix.panel] if len(matrices) > 1 and matrix.panel else []
        rows = matrix.rows()
        yield Picture(
            name=slug("dependence", *own),
            section="dependence",
            title=f"Dependence between experiments{named(own)}",
            caption=(
                "Rows: the run that read one experiment alone, below them the one that read all. Columns: the outcome "
                "of each experiment, treated − control on the same items of the same seed. Shade: size against the "
                "experiment's own effect on the diagonal; framed: off the diagonal and told from zero at 5 % after "
                f"Benjamini-Hochberg. n: a seed. Intervals: {methods(matrix)}."
            ),
            data=table(rows, list(rows[0])),
            draw=lambda axes, matrix=matrix, metrics=metrics: _draw(axes[0], matrix, metrics),  # type: ignore[misc]
            heights=(1.2 + 0.42 * len(matrix.treatments),),
        )


def _draw(axes: Axes, matrix: Matrix, metrics: Sequence[Metric]) -> None:
    treatments, outcomes = matrix.treatments, [outcome.insertion for outcome in matrix.outcomes]
    for column, (outcome, m) in enumerate(zip(matrix.outcomes, metrics, strict=True)):
        own = matrix.cell(outcome.insertion, outcome.insertion)
        for row, treatment in enumerate(treatments):
            cell = matrix.cell(treatment, outcome.insertion)
            if cell is None:
                continue
            share = shade(cell, own)
            colour = ARM_COLOUR["treated"] if share > 0 else ARM_COLOUR["control"]
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=_DARKEST * abs(share), linewidth=0))
            if not cell.diagonal and treatment != ALL and cell.p_adjusted < LIMIT:
                frame = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(frame, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.4))
            weight = "bold" if cell.diagonal else "normal"
            axes.text(column, row, m.difference(cell.estimate), ha="center", va="center", size=8, weight=weight)
            axes.text(column, row + 0.3, f"n = {cell.n:,}", ha="center", va="center", size=5.5)
    axes.set_xlim(-0.5, len(outcomes) - 0.5)
    axes.set_ylim(len(treatments) - 0.5, -0.5)
    outcomes_of = zip(matrix.outcomes, metrics, strict=True)
    labels = [f"{_short(outcome.insertion)}\n[{m.unit or outcome.metric}]" for outcome, m in outcomes_of]
    axes.set_xticks(range(len(outcomes)), labels, rotation=35, ha="right", rotation_mode="anchor", size=8)
    axes.set_yticks(range(len(treatments)), [_short(name) if name != ALL else "all together" for name in treatments])
    axes.set_xlabel("outcome of")
    axes.set_ylabel("run that read")
    axes.grid(False)
    axes.tick_params(length=0)
    if ALL in treatments:
        axes.axhline(len(treatments) - 1.5, color=FAINT, linewidth=0.8)


def shade(cell: Cell, own: Cell | None) -> float:
    """-1 to 1: the cell against the size of its column's diagonal; 0 where that is not told from no effect."""
    if own is None or not (own.low > 0 or own.high < 0):
        return 0.0
    return float(np.clip(cell.estimate / abs(own.estimate), -1, 1))


def _short(name: str) -> str:
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"
