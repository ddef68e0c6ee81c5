"""Facts and canaries by how often they were read: rows of the analysis in, one table over all probes or conditions out.

What a table of effects says of one task is here side by side: both arms, their difference, and how far that is beyond
the holdout's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.answer import matching
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.outcomes import measured_of
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.rows import telling, which_cells, which_columns
from pretrain_exp.report.tables import DASH, Cell, Column, Table, whole

BY_DOSE = {"target_logprob": "facts", "exposure": "membership"}  # metric -> section of the report
_TITLES = {
    "target_logprob": "Log-probability of a fact's value by how often it was read",
    "exposure": "Exposure of canaries by how often they were read",
}
_CAPTIONS = {
    "target_logprob": "A fact's value is the mean over its probes of one kind.",
    "exposure": (
        "log2 |R| − log2 rank of the canary among |R| candidates (Carlini et al. 2019): about 1.44 bits by chance, "
        "log2 |R| at most."
    ),
}


def by_dose_tables(analysis: Analysis) -> dict[str, Table]:
    """Section -> table; against control, or where there is none against holdout items of the same run."""
    found = {}
    for name, section in BY_DOSE.items():
        for contrast in ("treated_vs_control", "dose_vs_holdout"):
            rows = [
                row for row in analysis.estimates
                if (row.metric, row.contrast) == (name, contrast) and row.dose is not None
                and row.scope in ("run", "seeds")
            ]  # fmt: skip
            if rows and section not in found:
                found[section] = _table(analysis, rows)
    return found


def _table(analysis: Analysis, rows: Sequence[Estimate]) -> Table:
    shown = main_rows(rows, lambda row: (measured_of(row), row.group, row.dose))
    order = [panel.label for panel in analysis.design.panels]
    shown.sort(
        key=lambda r: (
            order.index(r.panel),
            r.insertion,
            analysis.relevance.key(measured_of(r)),
            r.group,
            r.dose or 0,
            r.seed or 0,
        )
    )
    first, m = shown[0], analysis.design.scores.metric(shown[0].metric)
    own = telling(shown, "panel", "insertion", "evaluation", "task", "group", "seed")
    against = first.contrast == "treated_vs_control"
    columns = [
        *which_columns(own), Column("Times read", keep=2), Column(f"n [{first.counted}]", keep=0),
        Column(f"{'Control' if against else 'Holdout'} [{m.unit}]"), Column(f"Treated [{m.unit}]", keep=2),
        Column("Difference", keep=2), Column("95 % interval" if first.level == 0.95 else "Interval", keep=2),
        *([Column("Beyond holdout", help="difference in differences")] if against else []),
    ]  # fmt: skip
    cells = []
    for row in shown:
        text, strong = m.difference(row.estimate), row.low > 0 or row.high < 0
        beyond = matching(analysis.estimates, row, contrast="difference_in_differences") if against else None
        cells.append(
            [
                *which_cells(row, own), Cell("holdout" if row.dose == 0 else f"{row.dose:,}", row.dose or 0),
                whole(row.n), Cell(m.level(row.reference), row.reference), Cell(m.level(row.value), row.value),
                Cell(text, row.estimate, strong=strong), Cell(m.interval(row.low, row.high), row.low, note=row.flag),
                *([_beyond(beyond, m)] if against else []),
            ]
        )  # fmt: skip
    methods = ", ".join(dict.fromkeys(row.method for row in shown))
    caption = f"{_CAPTIONS[first.metric]} Interval: {methods}; bold: it excludes 0."
    if against:
        caption += " Beyond holdout: the difference less that of the holdout, with its own interval."
    return Table(_TITLES[first.metric], columns, cells, caption, key=first.metric)


def _beyond(row: Estimate | None, m: Metric) -> Cell:
    if row is None or math.isnan(row.estimate):
        return Cell(DASH, -math.inf)
    return Cell(
        m.difference(row.estimate), row.estimate, note=m.interval(row.low, row.high), strong=row.low > 0 or row.high < 0
    )
