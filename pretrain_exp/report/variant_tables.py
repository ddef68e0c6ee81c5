"""Variants held against each other in one table: rows of the analysis in, a table for each insertion out.

The page has a table for every two variants and every metric; here all pairs stand together, in the metric that answers.
"""

from __future__ import annotations

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.outcomes import headline
from pretrain_exp.analysis.place import compared, short_variant
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.tables import Cell, Column, Table, caption_of, dose_cell, p_cell, whole


def variant_tables(analysis: Analysis) -> list[Table]:
    """One for each insertion whose variants are compared, the highest dose first."""
    pairs = compared([panel.label for panel in analysis.design.panels])
    found = [row for row in analysis.estimates if row.contrast == "member_vs_member" and row.scope in ("run", "seeds")]
    insertions = list(dict.fromkeys(row.insertion for row in found))
    tables = []
    for insertion in insertions:
        top = headline(analysis.estimates, analysis.relevance, None, insertion)
        place = top and (insertion, top.evaluation, top.task, top.metric)
        mine = [row for row in found if (row.insertion, row.evaluation, row.task, row.metric) == place]
        rows = main_rows(mine, lambda row: (row.panel, row.group, row.dose))
        rows.sort(key=lambda row: (-(row.dose or 0), row.group, list(pairs).index(row.panel), row.seed or 0))
        if not rows:
            continue
        m = analysis.design.scores.metric_of(rows[0])
        columns = [
            Column("Variant", number=False, keep=2), Column("Less", number=False, keep=2),
            Column("Times read", keep=2), Column(f"n [{rows[0].counted}]", keep=0),
            Column(f"Difference [{m.unit}]" if m.unit else "Difference", keep=2),
            Column("95 % interval" if rows[0].level == 0.95 else "Interval", keep=2), Column("p"),
            Column("p, adjusted"),
        ]  # fmt: skip
        cells = []
        for row in rows:
            less, variant = (short_variant(label) or "(unnamed)" for label in pairs[row.panel])
            seed = f", seed {row.seed}" if row.scope == "run" and len({each.seed for each in rows}) > 1 else ""
            cells.append(
                [
                    Cell(variant + seed), Cell(less), dose_cell(row), whole(row.n),
                    Cell(m.difference(row.estimate), row.estimate, strong=row.low > 0 or row.high < 0),
                    Cell(m.interval(row.low, row.high), row.low, note=row.flag), p_cell(row.p), p_cell(row.p_adjusted),
                ]
            )  # fmt: skip
        of = f" ({insertion})" if len(insertions) > 1 else ""
        tables.append(Table(f"Variants against each other: {m.label}{of}", columns, cells, caption_of(rows, analysis)))
    return tables
