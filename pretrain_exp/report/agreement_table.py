"""Whether scales agree, as a table for page and terminal: agreements of the variants of `model` in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain_exp.analysis.agreement import Agreement
from pretrain_exp.analysis.metrics import shown_metrics
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import Scores
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.rows import telling, which_cells, which_columns
from pretrain_exp.report.tables import DASH, Cell, Column, Table, number, whole

CAPTION = (
    "Effects (treated − control) of two scales, by condition: a task, an insertion and a dose, holdout among them. "
    "Spearman: correlation of their ranks. Same order: share of the pairs of conditions (decision accuracy); pairs "
    "equal in both scales are left out, those equal in one are not the same. Neither is given for fewer than three "
    "conditions, and neither has an interval: conditions share runs."
)


def agreement_table(agreements: Sequence[Agreement], scores: Scores) -> Table | None:
    """The metrics that are shown first, small print for single seeds; None where no model varies."""
    names = shown_metrics(row.metric for row in agreements)
    rows = [row for row in agreements if row.metric in names]
    shown = main_rows(rows, _place)
    if not shown:
        return None
    own = telling(shown, "evaluation")
    columns = [
        Column("Scales", number=False), *which_columns(own), Column("Metric", number=False, keep=2),
        Column("Conditions", keep=0), Column("Spearman"),
        Column("Pairs", help="of conditions, less those equal in both", keep=0),
        Column("Equal in both", keep=0), Column("Same order", keep=2),
    ]  # fmt: skip
    cells = []
    for row in shown:
        alone = [each for each in rows if each.seed is not None and _place(each) == _place(row)]
        scales = " / ".join(short_variant(label) for label in (row.first, row.second))
        rho = number(row.spearman, 2)
        share = Cell(_share(row.accuracy), -1 if math.isnan(row.accuracy) else row.accuracy)
        cells.append(
            [
                Cell(scales), *which_cells(row, own), Cell(scores.metric(row.metric).label), whole(row.n),
                Cell(rho.text, rho.sort, note=row.flag or _range([number(each.spearman, 2) for each in alone])),
                whole(row.pairs), whole(row.tied),
                Cell(share.text, share.sort, note=_range([Cell(_share(e.accuracy), e.accuracy) for e in alone])),
            ]
        )  # fmt: skip
    return Table("Do scales agree?", columns, cells, CAPTION)


def _place(row: Agreement) -> tuple[str, ...]:
    return row.first, row.second, row.evaluation, row.metric


def _share(value: float) -> str:
    return DASH if math.isnan(value) else f"{100 * value:.0f} %"


def _range(alone: Sequence[Cell]) -> str:
    """`single seeds: 0.60 to 0.90` of those that can be said."""
    said = sorted((cell for cell in alone if cell.text != DASH), key=lambda cell: float(cell.sort))
    return f"single seeds: {said[0].text} to {said[-1].text}" if said else ""
