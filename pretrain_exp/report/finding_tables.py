"""The tables of what only some studies have: rows of `analysis.findings` in, cells for page and terminal out.

Each table shows the rows to conclude from: over seeds where there are several, else those of the one run. All rows are
in tables/<name>.csv beside the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.codes import CodeShare
from pretrain_exp.analysis.fading import BEYOND
from pretrain_exp.analysis.findings import Findings
from pretrain_exp.analysis.knowledge import Effect, KnowledgeTable
from pretrain_exp.analysis.scores import Scores
from pretrain_exp.analysis.separations import MINUS, Separated
from pretrain_exp.report.by_dose_tables import by_dose_tables
from pretrain_exp.report.chosen import main_rows
from pretrain_exp.report.rows import between, short, telling, which_cells, which_columns
from pretrain_exp.report.tables import DASH, Cell, Column, Table, dose_cell, number, p_cell, whole


def finding_tables(analysis: Analysis) -> dict[str, list[Table]]:
    """Section -> its tables, of the sections that have any."""
    found, by_dose, scores = analysis.findings, by_dose_tables(analysis), analysis.design.scores
    tables = {
        "membership": [_membership(found.separations, scores)],
        "facts": [_facts(each) for each in found.knowledge if each.name != "traces"],
        "forgetting": [_curves(found, scores), _distances(found, scores)],
        "learned": [_codes(found.codes), _recurrence(found)],
        "watermark": [_watermark(found)],
    }
    kept = {
        section: [*([by_dose[section]] if section in by_dose else []), *(table for table in each if table.rows)]
        for section, each in tables.items()
    }
    return {section: each for section, each in kept.items() if each}


def _membership(rows: Sequence[Separated], scored: Scores) -> Table:
    def place(row: Separated) -> tuple[Any, ...]:
        return row.panel, row.insertion, row.evaluation, row.metric, row.group, row.dose

    shown = main_rows(rows, lambda row: (*place(row), row.scores, row.measure, row.fpr))
    own = telling(shown, "panel", "insertion", "evaluation", "seed")
    by: dict[tuple[Any, ...], dict[tuple[str, float | None], Separated]] = {}
    for row in shown:
        by.setdefault((*place(row), row.seed), {})[row.scores, row.fpr] = row
    columns = [
        *which_columns(own), Column("Attack", number=False, keep=2), Column("Condition", number=False, keep=2),
        Column("Times read", keep=2), Column("Read / not read", help="item scores, added over seeds", keep=0),
        Column("AUC, treated", keep=2), Column(f"AUC, {MINUS}", keep=2),
        Column("AUC, control", help="0.5 unless the items differ by themselves"),
        Column("TPR at 1 % FPR, treated"), Column("TPR at 0.1 % FPR, treated"),
    ]  # fmt: skip
    cells = []
    for found in by.values():
        first = next(iter(found.values()))
        line = [
            *which_cells(first, own), Cell(scored.metric(first.metric).label), Cell(first.group or "all"),
            Cell(f"{first.dose:,}", first.dose), Cell(f"{first.members:,} / {first.others:,}", first.members),
        ]  # fmt: skip
        for scores, fpr in (("treated", None), (MINUS, None), ("control", None), ("treated", 0.01), ("treated", 0.001)):
            one = found.get((scores, fpr))
            line.append(Cell(DASH, -1) if one is None else between(one.estimate, one.low, one.high, flag=one.flag))
        cells.append(line)
    methods = ", ".join(dict.fromkeys(row.method for row in shown))
    drawn = sorted({row.resampling_seed for row in shown if row.resampling_seed is not None})
    seeds = f" Resampling seeds: {', '.join(map(str, drawn))}." if drawn else ""
    caption = (
        "AUC: the chance that a text that was read scores above one that was not; 0.5 is guessing. TPR: the share of "
        f"texts that were read found while at most 1 % (0.1 %) of the others are. Interval: {methods}.{seeds}"
    )
    return Table("Can what was read be told from what was not?", columns, cells, caption)


def _facts(table: KnowledgeTable) -> Table:
    effects = [row for row in table.rows if isinstance(row, Effect)]
    shown = main_rows(effects, lambda r: (r.member, r.insertion, r.type, r.dose, r.against, r.outliers))
    own = telling(shown, "member", "insertion", "seed")
    decay = table.name == "decay"
    columns = [
        *which_columns(own), Column("Probes", number=False, keep=2), Column("Times read", keep=2),
        Column("Of", number=False, keep=2), Column("Outliers", number=False, keep=2), Column("n", keep=0),
        Column("Facts or seeds", keep=0), Column("Mean", keep=2),
        *([Column("Nothing left after [steps]")] if decay else []),
    ]  # fmt: skip
    cells = [
        [
            *which_cells(row, own), Cell(row.type), Cell(f"{row.dose:,}", row.dose),
            Cell("treated − control" if row.against else "treated"), Cell("in" if row.outliers else "left out"),
            whole(row.n), whole(row.facts), between(row.estimate, row.low, row.high, 3, row.flag),
            *([number(row.lost_at, 0)] if decay else []),
        ]
        for row in shown
    ]  # fmt: skip
    name = "Decay of what was gained" if decay else "Effectivity of an exposure"
    return Table(name, columns, cells, f"{table.caption}. Interval: t over facts, or over seeds where there are some.")


def _curves(found: Findings, scores: Scores) -> Table:
    rows = main_rows(found.fades, lambda r: (r.panel, r.insertion, r.evaluation, r.task, r.metric, r.dose, r.curve))
    own = telling(rows, "panel", "insertion", "task", "seed")
    unit = found.fades[0].unit if found.fades else "tokens"
    columns = [
        *which_columns(own), Column("Metric", number=False, keep=2), Column("Times read", keep=2),
        Column("Curve", number=False, keep=2), Column("n", help="item effects, added over seeds", keep=0),
        Column(f"Half-life [{unit}]", keep=2), Column(f"Zero at [{unit}]"),
    ]  # fmt: skip
    cells = [
        [
            *which_cells(row, own), Cell(scores.metric(row.metric).label), Cell(f"{row.dose:,}", row.dose),
            Cell(row.curve), whole(row.n), _distance(row.half_life, row.low, row.high, row.flag), _distance(row.zero),
        ]
        for row in rows
    ]  # fmt: skip
    caption = (
        f"In {unit} since the item was last read. Exponential: a exp(−x / τ), half-life τ ln 2. Logarithmic: "
        "a + b log₁₀ x, half-life where half of the effect at the smallest distance is left, zero at 10^(−a/b). "
        "Over seeds: geometric mean with a t interval on the logarithms; of one run no interval is given. A dash: the "
        "curve never gets there, or no fading at all fits as well. What holdout items moved by is not taken off."
    ) + (f" † {BEYOND}." if any(row.flag == BEYOND for row in rows) else "")
    return Table("How the effect fades", columns, cells, caption)


def _distance(value: float, low: float = math.nan, high: float = math.nan, flag: str = "") -> Cell:
    """A distance in tokens or steps, three digits of it."""
    if not math.isfinite(value):
        return Cell(DASH, math.inf, note=flag)
    mark = " †" if flag == BEYOND else ""
    text = short(value) + ("" if math.isnan(low) else f" ({short(low)} to {short(high)})")
    return Cell(text + mark, value, note=flag)


def _distances(found: Findings, scores: Scores) -> Table:
    rows = main_rows(found.faded, lambda r: (r.panel, r.insertion, r.evaluation, r.task, r.metric, r.dose, r.bin))
    own = telling(rows, "panel", "insertion", "task", "seed")
    unit = rows[0].unit if rows else "tokens"
    columns = [
        *which_columns(own), Column("Metric", number=False), Column("Times read"), Column(f"Since last read [{unit}]"),
        Column("n"), Column("Treated − control"), Column("95 % interval"),
        Column("Left of a weight", help="by the optimizer's weight decay alone, over the same steps"),
    ]  # fmt: skip
    cells = []
    panels = list(dict.fromkeys(row.panel for row in rows))
    for row in sorted(rows, key=lambda r: (panels.index(r.panel), r.insertion, r.task, r.metric, r.dose, r.distance)):
        m = scores.metric(row.metric)
        cells.append(
            [
                *which_cells(row, own), Cell(m.label), Cell(f"{row.dose:,}", row.dose), _distance(row.distance),
                whole(row.n), Cell(f"{m.difference(row.effect)} {m.unit}", row.effect),
                Cell(m.interval(row.low, row.high), row.low, note=row.flag), number(row.weight_left, 3),
            ]
        )  # fmt: skip
    methods = ", ".join(dict.fromkeys(row.method for row in rows))
    caption = (
        f"Items of a dose in bins of about equal size by the {unit} trained on since the step that read them last. "
        f"Interval: {methods}. Left of a weight: Π (1 − learning rate × weight decay) over the same steps."
    )
    return Table("Effect by time since the last exposure", columns, cells, caption, folded=True)


def _codes(rows: Sequence[CodeShare]) -> Table:
    order = sorted({row.code for row in rows}, key=_code_order)
    places: dict[tuple[Any, ...], dict[tuple[str, int], dict[str, float]]] = {}
    first: dict[tuple[Any, ...], CodeShare] = {}
    for row in rows:
        key = (row.panel, row.insertion, row.task, row.metric, row.dose, row.arm, row.group)
        first.setdefault(key, row)
        places.setdefault(key, {}).setdefault((row.member, row.seed), {})[row.code] = row.share
    own = [i for i in range(4) if len({key[i] for key in places}) > 1]
    names = which_columns(["panel", "insertion", "task", "metric"])
    columns = [
        *(names[i] for i in own), Column("Times read"), Column("Arm", number=False), Column("Runs", keep=0),
        *(Column(code.capitalize()) for code in order),
    ]  # fmt: skip
    cells = []
    panels = list(dict.fromkeys(row.panel for row in rows))
    for key, runs in sorted(places.items(), key=lambda pair: (panels.index(pair[0][0]), *pair[0][1:])):
        means = [float(np.mean([run.get(code, 0.0) for run in runs.values()])) for code in order]
        cells.append(
            [
                *(Cell(str(key[i])) for i in own), dose_cell(first[key]),
                Cell(key[5]), whole(len(runs)), *(Cell(f"{100 * mean:.0f} %", mean) for mean in means),
            ]
        )  # fmt: skip
    caption = (
        "Share of the items, mean over runs. Learned at s: wrong at every evaluated step before s and right from s on. "
        "Forgotten: the reverse. Unstable: neither. Codes of one run are noisy: see how often they recur."
    )
    return Table("When items were learned", columns, cells, caption)


def _code_order(code: str) -> tuple[int, int]:
    kind = ["learned", "forgotten", "unstable", "never"].index(code.split(" ")[0])
    return kind, int(code.rpartition(" ")[2]) if " at " in code else 0


def _recurrence(found: Findings) -> Table:
    own = telling(found.recurrences, "panel", "evaluation", "task", "metric")
    labels = ("Learned at step", "Items a run", "Again", "Earlier", "Later", "Not learned", "Right at this step")
    cells = []
    for row in found.recurrences:
        shares = (row.again, row.earlier, row.later, row.other, row.right)
        cells.append(
            [
                *which_cells(row, own), Cell(f"{row.step:,}", row.step), number(row.picked, 1),
                *(Cell(DASH if math.isnan(share) else f"{100 * share:.0f} %", share) for share in shares),
            ]
        )  # fmt: skip
    runs = max((row.runs for row in found.recurrences), default=0)
    caption = (
        f"Items that one control run learned at a step, and what another control run makes of them: mean over ordered "
        f"pairs of {runs} runs. An effect on items picked by their code must exceed this regression to the mean."
    )
    return Table(
        "How far codes recur without treatment", [*which_columns(own), *(Column(x) for x in labels)], cells, caption
    )


def _watermark(found: Findings) -> Table:
    rows = found.watermarks
    own = telling(rows, "panel", "insertion", "evaluation")
    columns = [
        *which_columns(own), Column("Noise", number=False, keep=2), Column("Arm", number=False, keep=2),
        Column("Times read", keep=2), Column("Scope", number=False, keep=2), Column("n", keep=0),
        Column("Mean", keep=2), Column("p, shift below 0"), Column("p, KS"),
        Column("TPR at 1 % FPR"),
    ]  # fmt: skip
    cells = [
        [
            *which_cells(row, own), Cell(row.noise), Cell(row.arm), Cell(f"{row.dose:,}", row.dose),
            Cell("over seeds" if row.seed is None else f"seed {row.seed}"), whole(row.n),
            between(row.mean, row.low, row.high, 2, row.flag), p_cell(row.z_p), p_cell(row.ks_p),
            between(row.tpr, row.tpr_low, row.tpr_high, 3),
        ]
        for row in rows
    ]  # fmt: skip
    caption = (
        "Normalised inner product of the gradient with the noise; N(0, 1) for noise that was never trained on, which "
        "must hold in the control and for fresh noise. KS: Kolmogorov-Smirnov against N(0, 1), two-sided. TPR: share "
        "below the null's 1 % quantile; intervals: t for the mean, Wilson for the TPR (over seeds: t)."
    )
    return Table("Trace of planted noise", columns, cells, caption)
