"""Tables about the study itself: what was planted, what was read, what could have been seen, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    groups: dict[tuple[str, int], dict[str, Any]] = {}
    columns = ("insertion", "dose", "item", "member", "seed", "step", "length", "status")
    for insertion, dose, item, member, seed, step, length, status in zip(
        *(study.ledger[c].to_pylist() for c in columns), strict=True
    ):
        entry = groups.setdefault(
            (insertion, dose), {"items": set(), "plans": set(), "edits": 0, "skipped": 0, "tokens": 0, "steps": []}
        )
        if status != "planted":
            entry["skipped"] += 1
            continue
        entry["items"].add((member, seed, item))
        entry["plans"].add((member, seed))
        entry["edits"] += 1
        entry["tokens"] += length
        entry["steps"] = [min([*entry["steps"], step]), max([*entry["steps"], step])]
    held: dict[str, set[Any]] = {}
    for insertion, dose, item, member, seed in zip(
        *(study.items[c].to_pylist() for c in ("insertion", "dose", "item", "member", "seed")), strict=True
    ):
        if dose == 0:
            held.setdefault(insertion, set()).add((member, seed, item))
    if not groups and not held:
        return None
    labels = ("Insertion", "Times planted", "Items", "Plans", "Edits", "Skipped", "Tokens", "Steps")
    cells = [
        [
            Cell(name, name),
            Cell("holdout", 0),
            whole(len(items)),
            whole(len({i[:2] for i in items})),
            whole(0),
            whole(0),
            whole(0),
            Cell(DASH, -1),
        ]
        for name, items in sorted(held.items())
    ]
    for (name, dose), entry in sorted(groups.items()):
        span = (
            Cell(f"{entry['steps'][0]:,} to {entry['steps'][1]:,}", entry["steps"][0])
            if entry["steps"]
            else Cell(DASH, -1)
        )
        cells.append(
            [
                Cell(name, name),
                Cell(f"{dose:,}", dose),
                whole(len(entry["items"])),
                whole(len(entry["plans"])),
                whole(entry["edits"]),
                whole(entry["skipped"]),
                whole(entry["tokens"]),
                span,
            ]
        )
    caption = "Counts are added over plans (one a seed and variant)."
    return Table("What was planted", [Column(label, label != "Insertion") for label in labels], cells, caption)


def proof_table(study: StudyData) -> Table | None:
    labels = ("Run", "Rows checked", "Mismatches", "Missing", "Duplicate", "")
    cells = []
    for proof in study.proofs:
        numbers = [whole(count(proof.get(key))) for key in ("rows_checked", "mismatches", "missing", "duplicate")]
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
