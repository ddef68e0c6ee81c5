"""The report in a terminal: the answer, variants and effects by dose, what was not planted, the proof, the limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.place import MOST_PAIRED
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.report.agreement_table import agreement_table
from pretrain_exp.report.by_dose_tables import by_dose_tables
from pretrain_exp.report.control_figures import control_tables
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.matrix_tables import dependence_table, floor_table
from pretrain_exp.report.tables import Table, effect_tables, side_effect_table
from pretrain_exp.report.variant_tables import variant_tables

_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MOST_ROWS = 12  # of a table of findings
_MOST_TABLES = 2  # of effects; of few variants one each; the rest stands on the page


def print_report(study: StudyData, console: Console, analysis: Analysis | None = None) -> None:
    """Prints the short form; analyses unless that is done already."""
    for part in parts(study, analysis or analyse(study), console.width):
        console.print(part, highlight=False)


def parts(study: StudyData, analysis: Analysis, width: int) -> Iterator[RenderableType]:
    """What is printed, in so many columns of the terminal."""
    yield Text(study.title, style="bold")
    if study.question:
        yield Text(study.question, style="italic")
    for remark in analysis.remarks:
        if remark.severity == "error":
            yield Text(f"! {remark.text}", style=_STYLE["error"])
    for answer in analysis.answers:
        yield Padding(Text(answer, style="bold green" if analysis.headline else "bold"), (1, 0, 0, 2))
    by_dose = by_dose_tables(analysis).values()  # are among the findings; they say what tables of effects say
    covered = {table.key for table in by_dose}
    every = list(effect_tables(analysis))
    shown = [table for table in every if not table.folded and table.key not in covered]
    few = len(analysis.design.panels) if len(analysis.design.panels) <= MOST_PAIRED else 1
    printed = [*variant_tables(analysis), *shown[: max(0, max(_MOST_TABLES, few) - len(covered))]]
    for table in map(_shortened, printed):
        yield Padding(rich_table(table, width), (1, 0, 0, 0))
    scores = analysis.design.scores
    matrices = [dependence_table(matrix, scores) for matrix in analysis.matrices]
    agreement, floor = agreement_table(analysis.agreements, scores), floor_table(analysis.floors, scores)
    for table in filter(None, (agreement, *matrices, floor)):
        yield Padding(rich_table(table, width), (1, 0, 0, 0))
    for tables in (*finding_tables(analysis).values(), control_tables(study.control)):
        for table in tables:
            if not table.folded:
                yield Padding(rich_table(_shortened(table), width), (1, 0, 0, 0))
    if aside := side_effect_table(analysis, _MOST_ROWS):
        yield Padding(rich_table(aside, width), (1, 0, 0, 0))
    if left := sum(table not in printed for table in every):
        of = f", of all {len(analysis.design.panels)} variants" if len(analysis.design.panels) > 1 else ""
        said = f"On the page as well: {left} more tables of effects{of}."
        yield Padding(Text(said, style=_STYLE["note"]), (1, 0, 0, 0))
    yield Padding(_proof(study), (1, 0, 0, 0))
    if study.audits:
        passed = sum(bool(audit["ok"]) for audit in study.audits)
        style = "green" if passed == len(study.audits) else _STYLE["error"]
        yield Text(f"Audit of the plan: {passed} of {len(study.audits)} passed (checked: {CHECKS}).", style=style)
    for remark in analysis.remarks:
        if remark.severity != "error":
            yield Text(f"{'!' if remark.severity == 'warning' else '·'} {remark.text}", style=_STYLE[remark.severity])


def _shortened(table: Table) -> Table:
    """The first rows; the caption says how many there are."""
    if len(table.rows) <= _MOST_ROWS:
        return table
    caption = f"{_MOST_ROWS} of {len(table.rows)} rows; the others are on the page. {table.caption}"
    return replace(table, rows=table.rows[:_MOST_ROWS], caption=caption)


def narrowed(table: Table, width: int) -> Table:
    """The table in so many columns of the terminal: first what is the same in every row goes into the caption.

    Then columns go that are to be kept least, from the right, and the caption names them; the first stays, and the
    widest goes after others of its kind.
    """
    said: list[str] = []
    for i in reversed(range(len(table.columns))):
        texts = {row[i].text for row in table.rows}
        if _width(table) > width and len(texts) == 1:
            said.insert(0, f"{table.columns[i].label}: {texts.pop()}.")
            table = _without(table, i)
    left: list[str] = []
    while _width(table) > width and len(table.columns) > 2:
        widths, keeps = column_widths(table), [column.keep for column in table.columns]
        least = [i for i, keep in enumerate(keeps) if i and keep == min(keeps[1:])]
        gone = least[-2] if len(least) > 1 and least[-1] == widths.index(max(widths)) else least[-1]
        left.insert(0, table.columns[gone].label)
        table = _without(table, gone)
    if left:
        said.append(f"Not shown in so narrow a terminal: {', '.join(left)}.")
    return replace(table, caption=" ".join([*said, table.caption]))


def _without(table: Table, i: int) -> Table:
    return replace(
        table,
        columns=[*table.columns[:i], *table.columns[i + 1 :]],
        rows=[[*row[:i], *row[i + 1 :]] for row in table.rows],
    )


def _width(table: Table) -> int:
    return sum(column_widths(table)) + len(table.columns) + 1  # and the edges


def column_widths(table: Table) -> list[int]:
    """Of each column; headings wrap between words, values not at all."""
    return [
        max(len(word) for word in [*column.label.split(), *(row[i].text for row in table.rows)])
        for i, column in enumerate(table.columns)
    ]


def rich_table(table: Table, width: int) -> RichTable:
    """The same cells as on the page, without small print, in so many columns of the terminal."""
    table = narrowed(table, width)
    rich = RichTable(
        title=escape(table.title),
        caption=escape(table.caption),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        pad_edge=False,
        padding=0,
    )
    for column, wide in zip(table.columns, column_widths(table), strict=True):
        rich.add_column(escape(column.label), justify="right" if column.number else "left", width=wide)
    for row in table.rows:
        rich.add_row(*(Text(cell.text, style="bold" if cell.strong else "") for cell in row))
    return rich


def _proof(study: StudyData) -> Text:
    if not study.proofs:
        return Text("Proof of what was read: none.", style="yellow")
    good = sum(bool(proof["ok"]) for proof in study.proofs)
    rows = sum(int(proof.get("rows_checked") or 0) for proof in study.proofs)
    style = "green" if good == len(study.proofs) else "bold red"
    return Text(
        f"Proof of what was read: {good} of {len(study.proofs)} runs as planned, {rows:,} rows checked.", style=style
    )
