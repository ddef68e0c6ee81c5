"""What was planted where, and what was asked, in the form that attribution methods read: a study in, a folder out.

    <folder>/README.md             what is in it, with the study's command and fingerprints
             ground_truth.parquet  one row a planted copy: item, insertion, group, dose, copy, step, row, column, ...
             items.parquet         one row an item, holdouts included
             train_rows/           the rows of training data that hold edits, as the model read them (input_ids)
             queries/              what the items ask (input_ids, labels: -100 before the target)
             relevance.parquet     train_index, query_index, copies: the sparse matrix that a method should find

train_rows and queries are folders that `datasets.load_dataset` opens; row i of each is index i of the matrix. One
member of a study at a time, for each has a plan of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pretrain_exp.data.order import order_from_json
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.tokenizer import Tokenizer, load
from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import DELIMITER, ChoiceItem
from pretrain_exp.items.facts import fact_of
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.plan.folder import Plan
from pretrain_exp.report.folder import replaced
from pretrain_exp.store.states import write_json
from pretrain_exp.study.registry import read_members, read_study

SCHEMA = 1
IGNORED = -100  # a label that no loss counts
BLOCK = 2048  # rows written at once
TOKENS = pa.list_(pa.int32())
TRAIN_SCHEMA = pa.schema(
    [
        ("train_index", pa.int64()), ("slot", pa.int64()), ("step", pa.int64()), ("row", pa.int64()),
        ("input_ids", TOKENS), ("labels", TOKENS), ("length", pa.int64()),
    ]
)  # fmt: skip
QUERY_SCHEMA = pa.schema(
    [
        ("query_index", pa.int64()), ("insertion", pa.string()), ("item", pa.string()), ("group", pa.string()),
        ("dose", pa.int64()), ("input_ids", TOKENS), ("labels", TOKENS), ("length", pa.int64()),
    ]
)  # fmt: skip
GROUND_TRUTH = (
    "item", "insertion", "group", "dose", "copy", "step", "row", "column", "length", "slot", "position", "kind",
    "status", "sigma",
)  # fmt: skip


def export_study(folder: Path, target: Path, number: int = 0) -> Path:
    """Writes the export of a study's member. Returns `target`; an earlier export there is replaced.

    UserError where there is no such member, or where it has no plan.
    """
    study = read_study(folder)
    members = read_members(study)
    if not 0 <= number < len(members):
        raise UserError("no such member", key="--member", value=number, fix=f"0 to {len(members) - 1}")
    member = members[number]
    if member["plan"] is None:
        raise UserError("has no plan: nothing was planted, so there is no ground truth", value=str(folder))
    plan, tokenizer = Plan.open(Path(member["plan"])), load(Path(member["tokenizer"]))
    with replaced(target) as fresh:
        truth = ground_truth(plan, Phases.from_json(member["phases"]))
        pq.write_table(truth, fresh / "ground_truth.parquet", compression="zstd")
        pq.write_table(plan.items().drop_columns(["tokens"]), fresh / "items.parquet", compression="zstd")
        slots = _train_rows(member, plan, truth, fresh / "train_rows")
        queries = list(_queries(plan, tokenizer))
        _write(fresh / "queries", QUERY_SCHEMA, iter(queries))
        matrix = relevance(truth, slots, queries, plan.meta["sequence_length"])
        pq.write_table(matrix, fresh / "relevance.parquet", compression="zstd")
        (fresh / "README.md").write_text(_readme(study, member, plan), encoding="utf-8")
        write_json(
            fresh / "summary.json",
            {
                "schema": SCHEMA,
                "plan": plan.fingerprint,
                "member": member["label"],
                "seed": member["seed"],
                "copies": len(truth),
                "train_rows": len(slots),
                "queries": len(queries),
                "audit": {"ok": plan.audit["ok"], "checks": CHECKS, "findings": plan.audit["findings"]},
            },
        )
    return target


def ground_truth(plan: Plan, phases: Phases) -> pa.Table:
    """The ledger with the slot of each copy (-1 where it has none), in order of position."""
    ledger = plan.ledger()
    step, row = (ledger[name].to_numpy().astype(np.int64) for name in ("step", "row"))
    steps, where = np.unique(step, return_inverse=True)
    first = np.array([phases.first_slot(int(t)) if t >= 0 else 0 for t in steps], dtype=np.int64)
    slot = np.where(row >= 0, first[where] + row, -1)
    table = ledger.append_column("slot", pa.array(slot)).select(list(GROUND_TRUTH))
    return table.sort_by([("position", "ascending"), ("insertion", "ascending"), ("item", "ascending")])


def _touched(truth: pa.Table, sequence: int) -> list[tuple[int, int, str, str]]:
    """(slot, step, insertion, item) of every slot that a copy lies in; one that crosses sequences lies in several."""
    planted = truth.filter(pc.and_(pc.equal(truth["status"], "planted"), pc.greater_equal(truth["slot"], 0)))
    columns = [planted[name].to_pylist() for name in ("slot", "step", "insertion", "item", "column", "length")]
    found = []
    for slot, step, insertion, item, column, length in zip(*columns, strict=True):
        for further in range((column + max(1, length) - 1) // sequence + 1):
            found.append((slot + further, step, insertion, item))
    return found


def _train_rows(member: dict[str, Any], plan: Plan, truth: pa.Table, folder: Path) -> list[int]:
    """Writes every row that holds an edit, as the treated run read it. Returns their slots, by index."""
    order, phases = order_from_json(member["order"]), Phases.from_json(member["phases"])
    slots = sorted({slot for slot, *_ in _touched(truth, plan.meta["sequence_length"])})
    steps, rows = phases.step_row(np.array(slots, dtype=np.int64))

    def read() -> Iterator[tuple[Any, ...]]:
        for index, (slot, step, row) in enumerate(zip(slots, steps, rows, strict=True)):
            tokens = plan.overlay.apply(slot, order.read(slot), order.read).astype(np.int32)
            yield index, slot, int(step), int(row), tokens, tokens, len(tokens)

    _write(folder, TRAIN_SCHEMA, read())
    return slots


def _queries(plan: Plan, tokenizer: Tokenizer) -> Iterator[tuple[Any, ...]]:
    """What each item asks: the right option after its question, a probe's target after its prompt, or its own text."""
    table = plan.items()
    names = ("insertion", "item", "group", "dose", "payload", "tokens")
    index = 0
    for insertion, item, group, dose, payload, tokens in zip(*(table[n].to_pylist() for n in names), strict=True):
        ids, given = _asked(json.loads(payload) if payload else {}, tokens, tokenizer)
        if ids:
            labels = [IGNORED] * given + ids[given:]
            yield index, insertion, item, group, dose, ids, labels, len(ids)
            index += 1


def _asked(payload: dict[str, Any], tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Token ids, and how many of them are given."""
    if payload and "kind" not in payload:
        item = ChoiceItem.from_fields(payload)
        return _split(item.query, item.planted_text(), tokenizer)
    if "prompt" in payload and "target" in payload:
        return _split(payload["prompt"], payload["prompt"] + DELIMITER + payload["target"], tokenizer)
    return list(tokens), 0


def _split(prompt: str, whole: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The tokens of the whole, and how many of them are those of the prompt alone."""
    ids, alone = (one.tolist() for one in tokenizer.encode([whole, prompt]))
    return ids, sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(ids, alone, strict=False)))


def relevance(truth: pa.Table, slots: Sequence[int], queries: Sequence[tuple[Any, ...]], sequence: int) -> pa.Table:
    """How many copies of what a query asks about lie in a row of training data; pairs without any are left out.

    An item of a fact (its id begins with the fact's) is asked about by every probe of that fact.
    """
    train = {slot: index for index, slot in enumerate(slots)}
    asked: dict[tuple[str, str], list[int]] = {}
    for index, insertion, item, *_ in queries:
        asked.setdefault((insertion, fact_of(item)), []).append(index)
    counts: dict[tuple[int, int], int] = {}
    for slot, _, insertion, item in _touched(truth, sequence):
        for query in asked.get((insertion, fact_of(item)), ()):
            pair = train[slot], query
            counts[pair] = counts.get(pair, 0) + 1
    pairs = sorted(counts)
    return pa.table(
        {
            "train_index": pa.array([a for a, _ in pairs], pa.int64()),
            "query_index": pa.array([b for _, b in pairs], pa.int64()),
            "copies": pa.array([counts[pair] for pair in pairs], pa.int64()),
        }
    )


def _write(folder: Path, schema: pa.Schema, rows: Iterator[tuple[Any, ...]]) -> None:
    """One Parquet file in a folder of its own, in blocks."""
    folder.mkdir()
    with pq.ParquetWriter(folder / "train.parquet", schema, compression="zstd") as writer:
        block: list[tuple[Any, ...]] = []
        for row in rows:
            block.append(row)
            if len(block) == BLOCK:
                writer.write_table(_table(schema, block))
                block = []
        if block:
            writer.write_table(_table(schema, block))


def _table(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def _readme(study: dict[str, Any], member: dict[str, Any], plan: Plan) -> str:
    name = ", ".join(part for part in (member["label"], f"seed {member['seed']}") if part)
    return (
        f"# Ground truth of {study['title']}\n\n"
        f"Member: {name}. Plan: {plan.fingerprint}. Made by: `{study['command']}`\n\n"
        f"Audit of the plan: {'passed' if plan.audit['ok'] else 'failed'}. Checked: {CHECKS}.\n\n"
        "What the files and columns mean: docs/exports.md of pretrain-exp.\n"
    )
