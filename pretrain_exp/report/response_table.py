"""The fit of the dose-response as a table: slopes, r50 and trends of binary outcomes, within seeds and over them."""

from __future__ import annotations

import math

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.outcomes import Measured
from pretrain_exp.report.tables import DASH, Cell, Column, Table, number, p_cell, whole


def response_table(analysis: Analysis) -> Table | None:
    """None where nothing was fitted, or every answer is the same."""
    fits = [
        fit for fit in analysis.responses
        if not analysis.relevance.silent(Measured(fit.panel, fit.insertion, *fit.series))
    ]  # fmt: skip
    rows = [(fit, row) for fit in fits for row in fit.rows]
    if not rows:
        return None
    several = len({(fit.panel, fit.insertion, fit.series) for fit in fits}) > 1
    columns = [
        Column("Quantity", number=False),
        Column("Scope", number=False),
        Column("n"),
        Column("Estimate"),
        Column("95 % interval"),
        Column("p"),
        Column("Method", number=False),
    ]
    quantity = {"slope": "slope", "r50": "r50", "trend": "trend, z"}
    cells = []
    for fit, row in sorted(rows, key=lambda pair: (list(quantity).index(pair[1].contrast), pair[1].scope != "seeds")):
        named = fit.panel, fit.series.task, fit.series.metric
        name = ", ".join(filter(None, (quantity[row.contrast], *(named if several else ()))))
        scopes = {"run": f"seed {row.seed}", "seeds": f"over {row.seeds} seeds"}
        scope = scopes.get(row.scope, row.scope)
        bounded = not math.isnan(row.low)
        interval = f"{number(row.low, 2).text} to {number(row.high, 2).text}" if bounded else DASH
        cells.append(
            [
                Cell(name, name),
                Cell(scope, scope),
                whole(row.n),
                _strong(number(row.estimate, 2), row.scope == "seeds"),
                Cell(interval, row.low, note=row.flag),
                p_cell(row.p),
                Cell(row.method, row.method),
            ]
        )
    caption = (
        "Slope: log-odds of a right answer per unit of log(1 + dose). r50: the dose at which the fitted accuracy is "
        "one half. Trend: Cochran-Armitage with scores log(1 + dose). Bold: over seeds, the one to conclude from."
    )
    return Table("Fit of the dose-response", columns, cells, caption)


def _strong(cell: Cell, strong: bool) -> Cell:
    return Cell(cell.text, cell.sort, cell.note, strong)
