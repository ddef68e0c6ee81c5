"""The matrix of dependence and the noise of runs without edits as tables, for page and terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_exp.analysis.dependence import ALL
from pretrain_exp.analysis.dependence import Cell as Estimated
from pretrain_exp.analysis.matrix import Matrix
from pretrain_exp.analysis.noise_floor import ARMS_OF, Floor
from pretrain_exp.analysis.scores import Scores
from pretrain_exp.report.dependence_figure import LIMIT, methods
from pretrain_exp.report.tables import DASH, Cell, Column, Table, number, whole


def dependence_table(matrix: Matrix, scores: Scores) -> Table:
    """(n + 1) x n cells, the noise of the controls below them."""
    metrics = {o.insertion: scores.metric(o.metric) for o in matrix.outcomes}
    columns = [Column("Run that read", number=False)]
    columns += [Column(f"{o.insertion} [{metrics[o.insertion].unit or o.metric}]") for o in matrix.outcomes]
    rows = []
    for treatment in matrix.treatments:
        cells = [Cell("all together" if treatment == ALL else f"{treatment} alone", treatment)]
        for outcome in matrix.outcomes:
            cell, m = matrix.cell(treatment, outcome.insertion), metrics[outcome.insertion]
            if cell is None:
                cells.append(Cell(DASH))
                continue
            beyond = cell.low > 0 or cell.high < 0
            strong = beyond if cell.diagonal or treatment == ALL else cell.p_adjusted < LIMIT
            note = ", ".join(filter(None, (m.interval(cell.low, cell.high), _counts(cell), cell.flag)))
            cells.append(Cell(m.difference(cell.estimate), cell.estimate, note=note, strong=strong))
        rows.append(cells)
    noise = [m.difference(matrix.noise[name], sign=False) for name, m in metrics.items()]
    rows.append([Cell("noise of the controls", "~"), *(Cell(text) for text in noise)])
    caption = (
        f"Differences to the control of the same seed on the same items; {methods(matrix)}. n: a seed; D: the "
        "difference over its standard error. Bold: told from zero, off the diagonal after Benjamini-Hochberg. Noise: "
        "standard deviation of control means between seeds."
    )
    return Table(f"Dependence{f' ({matrix.panel})' if matrix.panel else ''}", columns, rows, caption)


def _counts(cell: Estimated) -> str:
    """`n = 40, 2 seeds, D = 3.1`."""
    seeds = f"{cell.seeds} seed{'' if cell.seeds == 1 else 's'}"
    return f"n = {cell.n:,}, {seeds}, D = {number(cell.d, 1).text}"


def floor_table(floors: Sequence[Floor], scores: Scores) -> Table | None:
    """What runs without edits differ by; None for a study that has treated runs, or one control."""
    if not floors:
        return None
    columns = [
        Column("Measured", number=False),
        Column("Two runs differ within", help="half the 95 % interval of the difference of two runs", keep=2),
        Column("Largest difference"),
        Column("Spread of runs", help="standard deviation of the runs' means"),
        *(Column(f"Detectable, {k} seeds") for k in ARMS_OF),
        Column("Mean"),
        Column("Runs", keep=0),
        Column("Items", keep=0),
        Column("Spread of items", help="standard deviation of paired differences between two runs"),
    ]
    rows = []
    for floor in floors:
        m = scores.metric(floor.metric)
        name = ", ".join(filter(None, (floor.member, floor.task, m.label)))
        told = (floor.two_runs, floor.largest, floor.sd_runs, *floor.detectable.values())
        cells = [Cell(m.difference(value, sign=False), value) for value in (*told, floor.sd_items)]
        counts = [Cell(m.level(floor.mean), floor.mean), whole(floor.runs), whole(floor.n)]
        rows.append([Cell(name, name, note=m.unit), *cells[:-1], *counts, cells[-1]])
    caption = "Detectable: smallest effect that a t test over so many pairs of runs sees with 80 % power."
    return Table("What two runs without any edit differ by", columns, rows, caption)
