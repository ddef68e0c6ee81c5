"""Tables about the study itself: what was planted, what was read, what could have been seen, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.analysis.analyse import Analysis, Power
from pretrain_exp.analysis.exposures import of_facts
from pretrain_exp.analysis.limits import count, where
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.outcomes import Measured
from pretrain_exp.analysis.scores import ASIDE, REMOVED
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.chosen import of_shown_metrics
from pretrain_exp.report.rows import telling, which_cells, which_columns
from pretrain_exp.report.tables import DASH, Cell, Column, Table, dose_cell, whole

NO_SPREAD = "no spread: every difference is the same"


def power_table(analysis: Analysis) -> Table | None:
    shown = of_shown_metrics(analysis.power)
    if not shown:
        return None
    shown.sort(key=lambda row: (row.insertion, analysis.relevance.key(_measured(row)), row.dose))
    own = telling(shown, "panel", "insertion", "task")
    columns = [
        *which_columns(own),
        Column("Metric", number=False),
        Column("Times read"),
        Column("n a seed", help="items, or facts: a fact's score is the mean over its probes"),
        Column("Seeds"),
        Column("Spread of items", help="standard deviation of paired differences within a run"),
        Column("Detectable in one run"),
        Column("Spread of seeds", help="standard deviation of per-seed effects"),
        Column("Detectable over seeds"),
    ]
    cells = []
    for row in shown:
        m = analysis.design.scores.metric(row.metric)
        cells.append(
            [
                *which_cells(row, own),
                Cell(m.label, m.label, note=m.unit),
                dose_cell(row),
                Cell(f"{row.n:,} {row.counted}", row.n),
                whole(row.seeds),
                *_spread(m, row.sd_items, row.mde_run, NO_SPREAD),
                *_spread(m, row.sd_seeds, row.mde_seeds, NO_SPREAD if row.seeds > 1 else "one seed"),
            ]
        )
    caption = (
        "Smallest true effect that a two-sided test at 5 % sees with 80 % power, at the spread observed here: within "
        "one run (normal, paired items) and over these seeds (noncentral t). A spread from few seeds is uncertain."
    )
    return Table("What could have been seen", columns, cells, caption)


def _measured(row: Power) -> Measured:
    return Measured(row.panel, row.insertion, row.evaluation, row.task, row.metric)


def _spread(m: Metric, spread: float, detectable: float, why: str) -> tuple[Cell, Cell]:
    """A spread and what is seen at it; where there is no spread, none can be estimated."""
    if not spread > 0:
        return Cell(DASH, -math.inf, note=why), Cell("cannot be estimated", math.inf)
    return Cell(m.difference(spread, sign=False), spread), Cell(m.difference(detectable, sign=False), detectable)


def changed_table(study: StudyData) -> Table | None:
    """Edits by insertion and dose: items (facts, where texts tell of such), copies, tokens, steps; added over plans."""
    items, ledger = of_facts(study.items), of_facts(study.ledger)
    drawn_from, gone = (pc.equal(items["group"], group) for group in (ASIDE, REMOVED))
    items = items.append_column("called", pc.if_else(gone, REMOVED, "holdout"))
    held = _distinct(items.filter(pc.and_not(pc.equal(items["dose"], 0), drawn_from)), "insertion", "called")
    planted = ledger.filter(pc.equal(ledger["status"], "planted"))
    skipped = _counts(ledger.filter(pc.not_equal(ledger["status"], "planted")))
    sums = planted.group_by(["insertion", "dose"]).aggregate(
        [("step", "count"), ("length", "sum"), ("step", "min"), ("step", "max")]
    )
    rows = {(row["insertion"], row["dose"]): row for row in sums.to_pylist()}
    counted = _distinct(planted, "insertion", "dose")
    cells = [
        [Cell(name, name), Cell(called, 0), whole(n), whole(plans), *(whole(0) for _ in range(3)), Cell(DASH, -1)]
        for (name, called), (n, plans) in sorted(held.items())
    ]
    for name, dose in sorted({*rows, *skipped}):
        row = rows.get((name, dose), {"step_count": 0, "length_sum": 0, "step_min": None})
        n, plans = counted.get((name, dose), (0, 0))
        first = row["step_min"]
        span = Cell(DASH, -1) if first is None else Cell(f"{first:,} to {row['step_max']:,}", first)
        numbers = (n, plans, row["step_count"], skipped.get((name, dose), 0), row["length_sum"])
        cells.append([Cell(name, name), Cell(f"{dose:,}", dose), *(whole(value) for value in numbers), span])
    if not cells:
        return None
    labels = ("Insertion", "Times planted", "Items", "Plans", "Edits", "Skipped", "Tokens", "Steps")
    caption = (
        "Counts are added over plans (one a seed and variant). Texts of one fact are one item, planted as often as all."
    )
    return Table("What was planted", [Column(label, label != "Insertion") for label in labels], cells, caption)


def _counts(ledger: pa.Table) -> dict[tuple[str, int], int]:
    grouped = ledger.group_by(["insertion", "dose"]).aggregate([("item", "count")])
    return {(row["insertion"], row["dose"]): row["item_count"] for row in grouped.to_pylist()}


def _distinct(table: pa.Table, *keys: str) -> dict[tuple[Any, ...], tuple[int, int]]:
    """By keys: how many items, each plan's own, and how many plans."""
    found: list[dict[tuple[Any, ...], int]] = []
    for extra in (["member", "seed", "item"], ["member", "seed"]):
        grouped = table.group_by([*keys, *extra]).aggregate([]).group_by(list(keys)).aggregate([("seed", "count")])
        found.append({tuple(row[key] for key in keys): row["seed_count"] for row in grouped.to_pylist()})
    return {key: (n, found[1][key]) for key, n in found[0].items()}


def proof_table(study: StudyData) -> Table | None:
    labels = ("Run", "Rows checked", "Mismatches", "Missing", "Duplicate", "")
    cells = []
    for proof in study.proofs:
        keys = ("rows_checked", "mismatches", "missing", "duplicate")
        numbers = [whole(count(proof, key)) for key in keys]
        verdict = Cell("as planned" if proof["ok"] else "not as planned", strong=not proof["ok"])
        cells.append([Cell(where(proof), where(proof)), *numbers, verdict])
    caption = (
        "Every worker logged a digest of every row of every batch it read. An independent reader recomputed them from "
        "the raw files and the ledger: planned edits were read where the ledger says, and nothing else was changed."
    )
    return (
        Table("Rows read, held against the plan", [Column(x, x not in ("Run", "")) for x in labels], cells, caption)
        if cells
        else None
    )


def pairs_table(title: str, values: Mapping[str, Any]) -> Table | None:
    cells = [[Cell(str(key)), Cell(_plain(value))] for key, value in values.items()]
    return Table(title, [Column("", number=False), Column("", number=False)], cells) if cells else None


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"
    return str(value)
