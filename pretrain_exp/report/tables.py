"""The tables of effects: rows of the analysis in, cells with text and sorting value out, for page and terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.answer import format_p
from pretrain_exp.analysis.estimate import ALL, CONTRASTS, Estimate
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.outcomes import Measured, measured_of
from pretrain_exp.analysis.place import Place, short_variant
from pretrain_exp.analysis.scores import REMOVED
from pretrain_exp.report.chosen import main_rows, of_shown_metrics

DASH = "–"
MOST_ASIDE = 40  # rows of what was not planted


@dataclass(frozen=True)
class Cell:
    """text: as shown; sort: what a column is ordered by; note: small print under it; strong: stands out."""

    text: str
    sort: float | str = ""
    note: str = ""
    strong: bool = False

    @property
    def order(self) -> str:
        """`sort` as the page's script reads it; the text where there is none."""
        if self.sort in (math.inf, -math.inf):
            return "Infinity" if self.sort == math.inf else "-Infinity"
        return self.text if self.sort == "" else str(self.sort)


@dataclass(frozen=True)
class Column:
    """keep: in a terminal too narrow for all, columns with the smallest go first, the last of them before others.

    0: counts; 2: what tells rows apart, and what answers.
    """

    label: str
    number: bool = True
    help: str = ""
    keep: int = 1


@dataclass(frozen=True)
class Table:
    """title, rows, caption: how many, which interval, by which method. folded: shown on demand. key: the metric."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False
    key: str = field(default="", compare=False)


def number(value: float | None, digits: int = 3) -> Cell:
    if value is None or math.isnan(value):
        return Cell(DASH, -math.inf)
    text = f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
    return Cell(text.replace("-", "−"), value)


def whole(value: int | None) -> Cell:
    return Cell(DASH, -1) if value is None else Cell(f"{value:,}", value)


def p_cell(p: float) -> Cell:
    return Cell(format_p(p).removeprefix("= "), math.inf if math.isnan(p) else p)


_CONCLUDED = ("run", "seeds")  # scopes that main_rows chooses from
_SIDES = {
    "treated_vs_control": ("control", "treated"),
    "placebo_vs_control": ("control", "placebo"),
    "treated_vs_placebo": ("placebo", "treated"),
    "dose_vs_holdout": ("holdout", "at this dose"),
    "difference_in_differences": ("holdout, change", "at this dose, change"),
    "member_vs_member": ("reference variant, change", "other variant, change"),
}
_TITLES = {
    "treated_vs_control": "Against control, the same items",
    "dose_vs_holdout": "Against holdout items, in the treated arm",
    "difference_in_differences": "Difference in differences",
    "placebo_vs_control": "Placebo against control",
    "treated_vs_placebo": "Treated against placebo",
    "member_vs_member": "Variants against each other",
}


def effect_tables(analysis: Analysis) -> Iterator[Table]:
    """One table for each contrast and outcome, those that answer first (outcomes.py).

    Folded are contrasts between other arms, metrics that are not well known, and what is the same number everywhere.
    """
    groups: dict[tuple[str, ...], list[Estimate]] = {}
    found = [row for row in analysis.estimates if row.contrast in _SIDES and row.dose is not None]
    for row in found:
        groups.setdefault((row.contrast, *measured_of(row)), []).append(row)
    places = {key[1:5] for key in groups if key[0] != "member_vs_member"}
    several_insertions = len({key[2] for key in groups}) > 1
    order = list(_TITLES)
    known = {(row.insertion, row.metric) for row in of_shown_metrics(found)}

    def by_relevance(key: tuple[str, ...]) -> tuple[Any, ...]:  # panels stay in their order
        return order.index(key[0]), key[2], analysis.relevance.key(Measured(*key[1:]))

    for key in sorted(groups, key=by_relevance):
        contrast, name = key[0], key[5]
        rows = groups[key]
        several = any(row.scope == "seeds" for row in rows)
        main = main_rows([row for row in rows if row.scope in _CONCLUDED], lambda row: (row.group, row.dose))
        m = analysis.design.scores.metric(name)
        title = f"{_TITLES[contrast]}: {m.label}"
        if len(places) > 1 or contrast == "member_vs_member":
            own = short_variant(key[1]), key[2] if several_insertions else "", key[4]
            title += f" ({', '.join(filter(None, own))})"
        opened = (key[2], name) in known and contrast in ("treated_vs_control", "dose_vs_holdout", "member_vs_member")
        folded = not opened or analysis.relevance.silent(Measured(*key[1:]))
        yield replace(_effect_table(title, main, _SIDES[contrast], folded, analysis), key=name)
        if several:
            rest = [row for row in rows if row.scope != "seeds"]
            yield _seed_table(f"Each seed. {title}", rest, m)


def _one_seed(row: Estimate, rows: Sequence[Estimate]) -> str:
    """Said of a row of a single run among rows over seeds."""
    return f"seed {row.seed} only" if row.scope == "run" and any(other.scope == "seeds" for other in rows) else ""


def dose_cell(row: Estimate | Place) -> Cell:
    if row.group == REMOVED:
        return Cell(REMOVED, row.dose or 0)
    text = "holdout" if row.dose == 0 else f"{row.dose:,}" if row.dose is not None else DASH
    return Cell(f"{text} · {row.group}" if row.group else text, row.dose if row.dose is not None else -1)


def _effect_table(
    title: str, rows: Sequence[Estimate], sides: tuple[str, str], folded: bool, analysis: Analysis
) -> Table:
    m = analysis.design.scores.metric(rows[0].metric)
    change = "change" in sides[0]
    side: Callable[[float], str] = m.difference if change else m.level
    columns = [
        Column("Times read", keep=2),
        Column(f"n [{rows[0].counted}]", help="scores, added over seeds; a fact's is the mean over its probes", keep=0),
        Column(sides[0].capitalize()),
        Column(sides[1].capitalize()),
        Column(f"Difference [{m.unit}]" if m.unit else "Difference", keep=2),
        Column("95 % interval" if rows[0].level == 0.95 else "Interval", keep=2),
        Column("p"),
        Column("p, adjusted", help="Benjamini-Hochberg over metric x group"),
    ]
    cells = [
        [
            replace(dose_cell(row), note=_one_seed(row, rows)), whole(row.n),
            Cell(side(row.reference), row.reference), Cell(side(row.value), row.value),
            Cell(m.difference(row.estimate), row.estimate, strong=row.low > 0 or row.high < 0),
            Cell(m.interval(row.low, row.high), row.low, note=row.flag), p_cell(row.p), p_cell(row.p_adjusted),
        ]
        for row in rows
    ]  # fmt: skip
    return Table(title, columns, cells, caption_of(rows, analysis), folded)


def caption_of(rows: Sequence[Estimate], analysis: Analysis) -> str:
    methods = ", ".join(dict.fromkeys(row.method for row in rows))
    tests = ", ".join(dict.fromkeys(row.p_method for row in rows if row.p_method))
    families = Counter(row.family() for row in analysis.estimates if not math.isnan(row.p))
    sizes = sorted({families[row.family()] for row in rows if not math.isnan(row.p)}) or [0]
    contrast = CONTRASTS[rows[0].contrast]
    over = "not adjusted: one comparison"
    if sizes[-1] > 1:
        many = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
        over = f"adjusted over {many} comparisons (all tasks, metrics, doses and groups)"
    adjusted = f"p: {tests or 'none'}; {over}."
    return f"{contrast[0].upper()}{contrast[1:]}. Interval: {methods}; bold: it excludes 0. {adjusted}"


def _seed_table(title: str, rows: Sequence[Estimate], m: Metric) -> Table:
    paired = any(row.b is not None for row in rows)
    columns = [
        Column("Scope", number=False),
        Column("Times read", keep=2),
        Column(f"n [{rows[0].counted}]", help="scores, added over seeds; a fact's is the mean over its probes", keep=0),
        Column(f"Difference [{m.unit}]" if m.unit else "Difference", keep=2),
        Column("Interval"),
    ]
    columns += [Column("b / c", help="items right only in the first / only in the second arm")] if paired else []
    columns += [
        Column("p"),
        *([Column("mid-p")] if paired else []),
        Column("p, adjusted"),
        Column("Method", number=False),
    ]
    cells = []
    for row in sorted(rows, key=lambda r: (r.scope != "run", r.scope, r.dose or 0, r.seed or 0)):
        scope = f"seed {row.seed}" if row.scope == "run" else row.scope
        line = [
            Cell(scope, scope), dose_cell(row), whole(row.n), Cell(m.difference(row.estimate), row.estimate),
            Cell(m.interval(row.low, row.high), row.low, note=row.flag),
        ]  # fmt: skip
        if paired:
            line.append(Cell(DASH if row.b is None else f"{row.b} / {row.c}", row.b or 0))
        line.append(p_cell(row.p))
        if paired:
            line.append(p_cell(row.p_mid))
        drawn = "" if row.resampling_seed is None else f", seed {row.resampling_seed}"
        line += [p_cell(row.p_adjusted), Cell("; ".join(filter(None, (row.method + drawn, row.p_method))))]
        cells.append(line)
    return Table(
        title,
        columns,
        cells,
        "Pooled and bootstrap rows are descriptive: conclude from the t interval over seeds.",
        True,
    )


def side_effect_table(analysis: Analysis, most: int = MOST_ASIDE) -> Table | None:
    """Everything scored that no insertion holds: perplexity by domain, other benchmarks.

    Single domains come last where there is a row of all; of more than `most` rows the first, and the caption says so.
    """
    found = [
        row for row in analysis.estimates
        if row.contrast in ("treated_vs_control", "placebo_vs_control") and row.dose is None
        and row.scope in _CONCLUDED
    ]  # fmt: skip
    rows = main_rows(found, lambda row: (row.contrast, measured_of(row)))
    if not rows:
        return None
    whole_of = {row.evaluation for row in rows if row.task == ALL}
    rows.sort(key=lambda row: row.evaluation in whole_of and row.task != ALL)
    left = f"{most} of {len(rows):,} rows; effects.csv beside the page has the others. " if len(rows) > most else ""
    caption, rows = left + caption_of(rows, analysis), rows[:most]
    names = ("Scored", "Metric", "Arm")
    columns = [
        *(Column(name, number=False, keep=2) for name in names),
        Column("n", help="item scores, added over seeds", keep=0),
        Column("Control"),
        Column("This arm"),
        Column("Difference", keep=2),
        Column("95 % interval", keep=2),
        Column("p"),
        Column("p, adjusted"),
    ]
    cells = []
    for row in rows:
        m = analysis.design.scores.metric(row.metric)
        task = ", ".join(filter(None, (short_variant(row.panel), f"{row.evaluation}: {row.task}")))
        cells.append(
            [
                Cell(task, task, note=_one_seed(row, rows)), Cell(m.with_unit()), Cell(row.contrast.split("_")[0]),
                whole(row.n), Cell(m.level(row.reference), row.reference), Cell(m.level(row.value), row.value),
                Cell(m.difference(row.estimate), row.estimate, strong=row.low > 0 or row.high < 0),
                Cell(m.interval(row.low, row.high), row.low, note=row.flag), p_cell(row.p), p_cell(row.p_adjusted),
            ]
        )  # fmt: skip
    return Table("What was not planted", columns, cells, caption)
