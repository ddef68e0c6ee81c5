"""Tables about the study itself: what was planted, what was read, what could have been seen, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.limits import count, where
from pretrain_exp.analysis.metrics import HEADLINE, metric
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.tables import DASH, Cell, Column, Table, whole


def power_table(analysis: Analysis) -> Table | None:
    metrics = {row.metric for row in analysis.power}
    shown = [row for row in analysis.power if row.metric in HEADLINE or not metrics & set(HEADLINE)]
    if not shown:
        return None
    several = len({(row.panel, row.insertion) for row in shown}) > 1
    columns = [
        Column("Metric", number=False),
        Column("Times read"),
        Column("Items a seed"),
        Column("Seeds"),
        Column("Spread of items", help="standard deviation of paired differences within a run"),
        Column("Detectable in one run"),
        Column("Spread of seeds", help="standard deviation of per-seed effects"),
        Column("Detectable over seeds"),
    ]
    cells = []
    for row in shown:
        m = metric(row.metric, True)
        name = ", ".join(filter(None, (m.label, *((row.panel, row.insertion) if several else ()))))
        cells.append(
            [
                Cell(name, name, note=m.unit),
                Cell("holdout" if row.dose == 0 else f"{row.dose:,}", row.dose),
                whole(row.n),
                whole(row.seeds),
                *(
                    Cell(m.difference(v, sign=False), v)
                    for v in (row.sd_items, row.mde_run, row.sd_seeds, row.mde_seeds)
                ),
            ]
        )
    caption = (
        "Smallest true effect that a two-sided test at 5 % sees with 80 % power, at the spread observed here: within "
        "one run (normal, paired items) and over these seeds (noncentral t). A spread from few seeds is uncertain."
    )
    return Table("What could have been seen", columns, cells, caption)


def changed_table(study: StudyData) -> Table | None:
    """Edits by insertion and dose: items, copies, tokens, steps; added over plans."""
    held = _distinct(study.items.filter(pc.equal(study.items["dose"], 0)), "insertion")
    planted = study.ledger.filter(pc.equal(study.ledger["status"], "planted"))
    skipped = _counts(study.ledger.filter(pc.not_equal(study.ledger["status"], "planted")))
    sums = planted.group_by(["insertion", "dose"]).aggregate(
        [("step", "count"), ("length", "sum"), ("step", "min"), ("step", "max")]
    )
    rows = {(row["insertion"], row["dose"]): row for row in sums.to_pylist()}
    items = _distinct(planted, "insertion", "dose")
    cells = [
        [Cell(name, name), Cell("holdout", 0), whole(n), whole(plans), *(whole(0) for _ in range(3)), Cell(DASH, -1)]
        for (name,), (n, plans) in sorted(held.items())
    ]
    for name, dose in sorted({*rows, *skipped}):
        row = rows.get((name, dose), {"step_count": 0, "length_sum": 0, "step_min": None})
        n, plans = items.get((name, dose), (0, 0))
        first = row["step_min"]
        span = Cell(DASH, -1) if first is None else Cell(f"{first:,} to {row['step_max']:,}", first)
        numbers = (n, plans, row["step_count"], skipped.get((name, dose), 0), row["length_sum"])
        cells.append([Cell(name, name), Cell(f"{dose:,}", dose), *(whole(value) for value in numbers), span])
    if not cells:
        return None
    labels = ("Insertion", "Times planted", "Items", "Plans", "Edits", "Skipped", "Tokens", "Steps")
    caption = "Counts are added over plans (one a seed and variant)."
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
